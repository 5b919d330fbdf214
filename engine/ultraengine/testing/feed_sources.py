"""What every `feed.source.FeedSource` does, whether the shard is in this process or far away.

    class TestMyFeed(FeedSourceSuite):
        @pytest.fixture
        async def source(self, stored: StoredFeed) -> AsyncIterator[FeedSource]:
            yield MyFeed(stored.feed)

`StoredFeed` is a real log on a simulated disk with made-up commands, and the feed over it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from ultraengine.feed.consumer_moves import ConsumerMoves
from ultraengine.feed.driver import Feed
from ultraengine.feed.source import Consumer, FeedPage, FeedSource
from ultraengine.log.driver import Log, LogOptions, Written
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.command import Command
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.outcome import EMPTY_ARRAY, CommittedGroup, Outcome, Status
from ultraengine.model.policy import CompactionPolicy
from ultraengine.ports import ObjectStore
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk

SHARD = ShardId(3)
SECRETS = SimSecrets({"disk": b"m" * 32, "chain": b"c" * 32})
LIMITS = Limits(
    segment_bytes=16 * 1024,
    frame_bytes_max=8 * 1024,
    reserve_bytes=4096,
    feed_page_bytes_max=4 * 1024,
    feed_page_groups_max=8,
    feed_consumers_max=3,
)
IDLE_S = 0.02
_SERIALIZER = MsgpackSerializer()


class KeptSlots:
    """`feed.source.Slots` in a dictionary: what is due is taken over at once."""

    def __init__(self, consumers_max: int) -> None:
        self._logged: dict[str, int] = {}
        self._moves = ConsumerMoves(lambda: self._logged, lambda: (0, 0), consumers_max)

    def consumers(self) -> list[Consumer]:
        """All slots, by name."""
        return list(self._moves.consumers())

    def confirm(self, name: str, offset: Offset) -> None:
        """Move a slot on.  Raises as `ConsumerMoves.confirm`."""
        self._moves.confirm(name, offset)
        self._logged |= {one.name: one.offset for one in self._moves.due(float("inf"))}

    def forget(self, name: str) -> None:
        """Drop a slot."""
        if self._moves.drop(name):
            self._logged.pop(name, None)


class StoredFeed:
    """Groups in a log, as a shard writes them, and their feed."""

    def __init__(
        self,
        *,
        encrypted: bool = False,
        compaction: CompactionPolicy | None = None,
        store: ObjectStore | None = None,
        shard: ShardId = SHARD,
        seed: int = 0,
        segment_bytes: int = LIMITS.segment_bytes,
    ) -> None:
        self.shard = shard
        self._seed = seed
        self.disk = SimDisk(7)
        self.clock = SimClock()
        self._options = LogOptions(
            shard=shard,
            epoch=Epoch(1),
            handlers=b"12345678",
            limits=msgspec.structs.replace(LIMITS, segment_bytes=segment_bytes),
            compress=encrypted,
            master_key="disk" if encrypted else None,
            chain_key="chain" if encrypted else None,
        )
        self._compaction, self._store = compaction, store
        self._starts = 0
        self.written: list[list[Command]] = []
        """The commands of every group, from the first one on."""
        self.recorded = 0
        """Outcomes in the log."""
        self._open()

    def _open(self) -> None:
        self._starts += 1
        self.log = Log.open(
            self.disk,
            self.clock,
            SimRandom(self._seed + self._starts),
            SECRETS,
            self._options,
            compaction=self._compaction,
            store=self._store,
        )
        self.log.start(_raise, threads=False)
        reader = self.log.reader(archived=True)
        slots = KeptSlots(LIMITS.feed_consumers_max)
        self.feed = Feed(reader, self.shard, limits=LIMITS, slots=slots, idle_s=IDLE_S)
        recovered = self.log.recovered
        self.feed.publish(recovered.recorded_end, recovered.last_time)

    async def restart(self) -> None:
        """The process ends without a word, and another one begins."""
        await self.feed.close()
        self.disk = self.disk.kill()
        self._open()

    @property
    def end(self) -> int:
        """Next offset."""
        return sum(len(group) for group in self.written)

    def commands(self, count: int = 2, size: int = 20) -> None:
        """Write a group without its outcomes."""
        base = self.end
        group = [_command(offset, size) for offset in range(base, base + count)]
        self.written.append(group)
        payload = _SERIALIZER.encode_commands(group)
        self._write(FrameDraft(FrameKind.COMMANDS, base, count, self._tick(), payload))

    def outcomes(self, count: int | None = None) -> None:
        """Write the outcomes that are missing, or some of them, and tell the feed."""
        end = self.end if count is None else self.recorded + count
        while self.recorded < end:
            # A frame of outcomes belongs to one group.
            stop = min(end, self._group_end(self.recorded))
            made = [_outcome(offset) for offset in range(self.recorded, stop)]
            payload = _SERIALIZER.encode_outcomes(made)
            draft = FrameDraft(
                FrameKind.OUTCOMES, self.recorded, len(made), self.clock.now(), payload
            )
            self._write(draft)
            self.recorded = stop
        self.feed.publish(self.recorded, self.clock.now())

    def write(self, groups: int = 1, count: int = 2, size: int = 20) -> None:
        """Write whole groups."""
        for _ in range(groups):
            self.commands(count, size)
            self.outcomes()

    def cut(self) -> int:
        """Remove what lies in segments below the end; the first offset that is left."""
        end = self.log.durable.durable_end
        return self.log.retain(self.end, end, {}).first_offset

    def _group_end(self, offset: int) -> int:
        end = 0
        for group in self.written:
            end += len(group)
            if end > offset:
                break
        return end

    def _tick(self) -> Instant:
        self.clock.advance(0.001)
        return self.clock.now()

    def _write(self, draft: FrameDraft) -> None:
        told: list[Written] = []
        self.log.write([draft], told.append)
        (written,) = told
        if written.error is not None:
            raise written.error


def _raise(error: BaseException) -> None:
    raise error


def _command(offset: int, size: int) -> Command:
    data = msgspec.msgpack.encode(f"{offset}:".ljust(size, "x"))
    return Command(f"id-{offset}", "t.do@1", f"k{offset % 3}", msgspec.Raw(data), "acme", "p")


def _outcome(offset: int) -> Outcome:
    result = msgspec.Raw(msgspec.msgpack.encode(offset))
    return Outcome(offset, Status.ACCEPTED, offset + 1, result, EMPTY_ARRAY)


def _equal(found: object, expected: object) -> None:
    """Raises AssertionError; a plain ``assert`` would say nothing outside of test modules."""
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}")


async def collect(
    source: FeedSource, from_offset: int, until: int, shard: ShardId = SHARD
) -> list[CommittedGroup]:
    """The groups from an offset on until one ends at `until`, which must be reached."""
    found: list[CommittedGroup] = []
    async with asyncio.timeout(60), aclosing(source.pages(shard, Offset(from_offset))) as pages:
        async for page in pages:
            found += page.groups
            if found and found[-1].offset_end >= until:
                return found
    raise EOFError(f"the pages ended after {len(found)} groups, before offset {until}")


def commands_of(groups: list[CommittedGroup]) -> list[list[Command]]:
    """What the groups hold, decoded; their outcomes are checked to be theirs."""
    found = []
    for group in groups:
        commands = _SERIALIZER.decode_commands(group.commands)
        outcomes = _SERIALIZER.decode_outcomes(group.outcomes)
        _equal([one.offset for one in outcomes], list(range(group.base_offset, group.offset_end)))
        _equal(len(commands), group.count)
        found.append(commands)
    return found


class FeedSourceSuite:
    """The contract; subclasses have a fixture ``source``."""

    @pytest.fixture
    def stored(self) -> StoredFeed:
        """A log and its feed."""
        return StoredFeed()

    @pytest.fixture
    def source(self, stored: StoredFeed) -> FeedSource:
        """The source under test, over the stored feed."""
        raise NotImplementedError

    async def test_it_knows_its_shards(self, source: FeedSource) -> None:
        _equal(list(await source.shards()), [SHARD])

    async def test_every_group_comes_once_and_in_order(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(30, count=3)
        groups = await collect(source, 0, 90)
        _equal(commands_of(groups), stored.written)
        chains = [group.chain for group in groups]
        _equal(len(set(chains)), 30)
        _equal({len(chain) for chain in chains}, {16})
        _equal([group.sequence for group in groups], list(range(0, 60, 2)))

    async def test_pages_begin_with_the_group_that_holds_the_offset(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(5, count=4)
        for offset in (0, 4, 7, 19):
            groups = await collect(source, offset, 20)
            _equal(groups[0].base_offset, offset - offset % 4)
            _equal(commands_of(groups), stored.written[offset // 4 :])

    async def test_a_group_carries_the_chain_that_the_log_has_behind_it(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(3)
        groups = await collect(source, 0, 6)
        reader = stored.log.reader()
        expected = [reader.chain_at(group.sequence + 1) for group in groups]
        _equal([group.chain for group in groups], expected)

    async def test_the_first_page_comes_at_once_and_says_where_the_feed_ends(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(2)
        async with aclosing(source.pages(SHARD, Offset(4))) as pages:
            page = await anext(pages)
        _equal(page, FeedPage((), Offset(4), stored.clock.now()))

    async def test_empty_pages_come_while_nothing_happens(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        async with aclosing(source.pages(SHARD, Offset(0))) as pages:
            found = [await anext(pages) for _ in range(4)]
        _equal(found, [FeedPage((), Offset(0), Instant(stored.log.recovered.last_time))] * 4)

    async def test_what_is_written_later_is_shown_later(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        async with aclosing(source.pages(SHARD, Offset(0))) as pages:
            for number in range(6):
                stored.write()
                page = await anext(pages)
                while not page.groups:
                    page = await anext(pages)
                _equal(commands_of(list(page.groups)), stored.written[number : number + 1])

    async def test_commands_without_outcomes_are_not_shown(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write()
        stored.commands(count=4)
        _equal(commands_of(await collect(source, 0, 2)), stored.written[:1])
        async with aclosing(source.pages(SHARD, Offset(2))) as pages:
            stored.outcomes(count=2)
            _equal([(await anext(pages)).groups for _ in range(4)], [()] * 4)
            stored.outcomes()
            page = await anext(pages)
            while not page.groups:
                page = await anext(pages)
        _equal(commands_of(list(page.groups)), stored.written[1:])

    async def test_pages_are_bounded_in_groups_and_bytes(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(20)
        stored.write(6, size=900)
        stored.write(1, count=1, size=7_000)
        stored.write(1)
        sizes: list[list[int]] = []
        async with aclosing(source.pages(SHARD, Offset(0))) as pages:
            while sum(len(size) for size in sizes) < 28:
                page = await anext(pages)
                sizes.append([len(one.commands) + len(one.outcomes) for one in page.groups])
        _equal(max(len(size) for size in sizes), LIMITS.feed_page_groups_max)
        large = [size for size in sizes if sum(size) > LIMITS.feed_page_bytes_max]
        _equal([len(size) for size in large], [1])  # A group that is too large comes alone.

    async def test_consumers_go_at_their_own_pace(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(20)
        async with aclosing(source.pages(SHARD, Offset(0))) as slow:
            first = await anext(slow)
            _equal(commands_of(await collect(source, 0, 40)), stored.written)
            second = await anext(slow)
        _equal(second.groups[0].base_offset, first.groups[-1].offset_end)

    async def test_an_offset_that_was_cut_is_too_old(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(60, count=5)
        first = stored.cut()
        _equal(first > 0, expected=True)
        with pytest.raises(EngineError) as caught:
            await collect(source, first - 1, 300)
        _equal(caught.value.code, "TOO_OLD")
        _equal(str(first) in caught.value.detail, expected=True)
        _equal("slot" in caught.value.detail, expected=True)
        _equal(len(await collect(source, first, 300)), 60 - first // 5)

    async def test_another_shard_and_a_negative_offset_are_refused(
        self, source: FeedSource
    ) -> None:
        for shard, offset, code in ((ShardId(4), 0, "NOT_FOUND"), (SHARD, -1, "MALFORMED")):
            with pytest.raises(EngineError) as caught:
                await anext(source.pages(shard, Offset(offset)))
            _equal(caught.value.code, code)

    async def test_a_slot_is_made_moves_on_never_back_and_is_forgotten(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write(5)
        _equal(list(await source.consumers(SHARD)), [])
        await source.confirm(SHARD, "mail", Offset(4))
        await source.confirm(SHARD, "books", Offset(0))
        await source.confirm(SHARD, "mail", Offset(10))
        await source.confirm(SHARD, "mail", Offset(3))
        slots = [Consumer("books", Offset(0)), Consumer("mail", Offset(10))]
        _equal(list(await source.consumers(SHARD)), slots)
        for _ in range(2):
            await source.forget(SHARD, "mail")
            _equal(list(await source.consumers(SHARD)), slots[:1])

    async def test_what_is_not_durable_here_cannot_be_confirmed(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write()
        stored.commands()
        with pytest.raises(EngineError) as caught:
            await source.confirm(SHARD, "mail", Offset(3))
        _equal((caught.value.code, caught.value.pointer), ("MALFORMED", "/offset"))
        _equal(list(await source.consumers(SHARD)), [])

    @pytest.mark.parametrize("name", ["a b", "x" * 129, "ä", "a/b", "?"])
    async def test_a_name_that_is_none_is_refused(self, source: FeedSource, name: str) -> None:
        with pytest.raises(EngineError) as caught:
            await source.confirm(SHARD, name, Offset(0))
        _equal(caught.value.code, "MALFORMED")

    async def test_slots_are_bounded(self, source: FeedSource) -> None:
        for number in range(LIMITS.feed_consumers_max):
            await source.confirm(SHARD, f"c{number}", Offset(0))
        with pytest.raises(EngineError) as caught:
            await source.confirm(SHARD, "one-more", Offset(0))
        _equal(caught.value.code, "OVERLOADED")
        await source.forget(SHARD, "c1")
        await source.confirm(SHARD, "one-more", Offset(0))
        names = [one.name for one in await source.consumers(SHARD)]
        _equal(names, ["c0", "c2", "one-more"])

    async def test_pages_end_when_the_source_closes(
        self, stored: StoredFeed, source: FeedSource
    ) -> None:
        stored.write()
        pages = source.pages(SHARD, Offset(0))
        _equal(len((await anext(pages)).groups), 1)
        rest = asyncio.ensure_future(_drain(pages))
        await asyncio.sleep(0)
        await source.close()
        async with asyncio.timeout(60):
            _equal([page.groups for page in await rest if page.groups], [])
        await source.close()


async def _drain(pages: AsyncIterator[FeedPage]) -> list[FeedPage]:
    return [page async for page in pages]
