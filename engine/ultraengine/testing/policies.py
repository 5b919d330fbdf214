"""Contracts of the replaceable policies, as tests to inherit (requirement 001 §2.3).

    class TestMyScheduling(SchedulingContract):
        def make(self): return MyScheduling()

Every policy that is shipped passes its contract, and so must one of your own.
"""

import copy
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgspec

from ultraengine.cache.bounded import Cache
from ultraengine.model.command import Command
from ultraengine.model.ids import Instant
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, Failure, Outcome, Status
from ultraengine.model.policy import (
    CachePolicy,
    CompactionPolicy,
    DurabilityPolicy,
    LogSerializer,
    SchedulingPolicy,
)

SEEDS: Final = range(20)
WAITING_CALLS_MAX: Final = 200
"""Calls after which a command that waits must have been chosen, under constant arrivals."""
GROUP_WAIT_S_MAX: Final = 1.0

_encode: Final = msgspec.msgpack.Encoder().encode


def _true(sentence: str, holds: bool) -> None:  # noqa: FBT001  (the only argument besides the sentence)
    """Raises AssertionError; a plain ``assert`` would say nothing outside of test modules."""
    if not holds:
        raise AssertionError(f"does not hold: {sentence}")


def _same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")


def command(number: int, *, tenant: str = "t", key: str = "k") -> Command:
    """A command for tests of policies; different numbers, different ids and contents."""
    return Command(
        id=f"id-{number}",
        type="counter.add_value@1",
        key=key,
        data=msgspec.Raw(_encode({"by": number})),
        tenant=tenant,
        principal="p",
    )


class SchedulingContract:
    """Tests for one `SchedulingPolicy`: give ``make``."""

    def make(self) -> SchedulingPolicy:
        """A new policy."""
        raise NotImplementedError

    def _queues(self) -> list[list[Command]]:
        queues: list[list[Command]] = []
        for seed in SEEDS:
            source = Random(seed)  # noqa: S311  (a repeatable script, not a secret)
            tenants, keys = source.randint(1, 5), source.randint(1, 4)
            queues.append(
                [
                    command(
                        number,
                        tenant=f"t{source.randrange(tenants)}",
                        key=f"k{source.randrange(keys)}",
                    )
                    for number in range(source.randint(1, 60))
                ]
            )
        return queues

    def test_it_chooses_some_each_once_and_not_too_many(self) -> None:
        """A group is never empty while commands wait, and never larger than it may be."""
        policy = self.make()
        for waiting in self._queues():
            for count_max in (1, 3, len(waiting), len(waiting) + 5):
                chosen = list(policy.choose(waiting, count_max))
                _true("at least one is chosen", len(chosen) >= 1)
                _true("no more than may be are chosen", len(chosen) <= count_max)
                _same("indexes chosen twice", len(chosen) - len(set(chosen)), 0)
                _true("indexes are of waiting commands", set(chosen) <= set(range(len(waiting))))

    def test_nothing_waits_nothing_is_chosen(self) -> None:
        """An empty queue is no error."""
        _same("chosen of an empty queue", list(self.make().choose([], 10)), [])

    def test_commands_of_one_key_keep_their_order(self) -> None:
        """Of one (tenant, key), the oldest are chosen, oldest first."""
        policy = self.make()
        for waiting in self._queues():
            chosen = list(policy.choose(waiting, max(1, len(waiting) // 2)))
            for name in {(one.tenant, one.key) for one in waiting}:
                mine = [n for n, one in enumerate(waiting) if (one.tenant, one.key) == name]
                mine_chosen = [n for n in chosen if n in mine]
                _same(f"order of {name}", mine_chosen, mine[: len(mine_chosen)])

    def test_it_is_a_function_of_its_arguments(self) -> None:
        """The same queue gives the same choice, from a policy used before as from a new one."""
        used = self.make()
        for waiting in self._queues():
            before = copy.deepcopy(waiting)
            first = list(used.choose(waiting, 7))
            _same("choice of the same queue again", list(used.choose(waiting, 7)), first)
            _same("choice of a new policy", list(self.make().choose(waiting, 7)), first)
            _same("the queue after the choice", waiting, before)

    def test_nobody_starves(self) -> None:
        """One command of each of ten tenants is chosen although others keep arriving."""
        for busy in range(10):
            policy = self.make()
            waiting = [command(n, tenant=f"t{n}") for n in range(10)]
            old, number = {one.id for one in waiting}, 10
            calls = 0
            while old:
                calls += 1
                _true("everybody is chosen in the end", calls <= WAITING_CALLS_MAX)
                for _ in range(8):
                    waiting.append(command(number, tenant=f"t{busy}", key=f"k{number % 3}"))
                    number += 1
                chosen = set(policy.choose(waiting, 4))
                old -= {waiting[n].id for n in chosen}
                waiting = [one for n, one in enumerate(waiting) if n not in chosen]


class DurabilityContract:
    """Tests for one `DurabilityPolicy`: give ``make``."""

    def make(self) -> DurabilityPolicy:
        """A new policy."""
        raise NotImplementedError

    def test_its_rule_is_one_that_the_engine_can_keep(self) -> None:
        """Name, wait and size are within what replies promise."""
        rule = self.make().rule()
        _true("the name is one that replies may carry", rule.name in ("sync", "group", "async"))
        _true("the wait is bounded", 0 <= rule.wait_s <= GROUP_WAIT_S_MAX)
        _true("a group has room for a command", rule.group_bytes_max >= 1)
        _same("only async replies before the flush", rule.reply_before_flush, rule.name == "async")
        _true("sync waits for nothing but the disk", rule.name != "sync" or rule.wait_s == 0)

    def test_its_rule_can_be_asked_for_at_any_time(self) -> None:
        """Every group asks; the answer depends on nothing else."""
        policy = self.make()
        _same("the rule the second time", policy.rule(), policy.rule())


class CacheContract:
    """Tests for one `CachePolicy`: give ``make``; keys are strings."""

    def make(self, capacity: int) -> CachePolicy[str]:
        """A new policy for a cache of `capacity` entries."""
        raise NotImplementedError

    def test_a_cache_with_it_never_holds_too_much_or_something_else(self) -> None:
        """Against a dict, over random uses and removals, for several sizes."""
        for capacity in (1, 2, 3, 10, 100):
            cache: Cache[str, int] = Cache(capacity, self.make(capacity))
            source = Random(capacity)  # noqa: S311  (a repeatable script, not a secret)
            for number in range(2_000):
                key = str(int(source.paretovariate(0.5)) % (3 * capacity + 2))
                if source.random() < 0.05:
                    cache.remove(key)
                    _same("a removed key", cache.get(key), None)
                else:
                    found = cache.get(key)
                    _true("a key has its own value", found in (None, value_of(key)))
                    if found is None and cache.put(key, value_of(key)):
                        _same("a key just put", cache.get(key), value_of(key))
                _true(f"the cache is bounded at step {number}", len(cache) <= capacity)

    def test_a_cleared_cache_fills_again(self) -> None:
        """Removals leave nothing behind in the policy."""
        cache: Cache[str, int] = Cache(10, self.make(10))
        for _ in range(3):
            for number in range(10):
                _true("an empty place is given away", cache.put(str(number), number))
            _same("a full cache", len(cache), 10)
            cache.clear()
            _same("a cleared cache", len(cache), 0)

    def test_a_key_used_again_and_again_stays(self) -> None:
        """A stream of keys that come once does not push it out for good."""
        cache: Cache[str, int] = Cache(50, self.make(50))
        misses = 0
        for number in range(2_000):
            for key in ("favourite", f"once-{number}"):
                if cache.get(key) is None:
                    misses += key == "favourite"
                    cache.put(key, 1)
        _true("the favourite is found nine times of ten", misses <= 200)

    def test_it_is_deterministic(self) -> None:
        """The same uses leave the same keys."""
        contents: list[list[bool]] = []
        for _ in range(2):
            cache: Cache[str, int] = Cache(20, self.make(20))
            source = Random(9)  # noqa: S311  (a repeatable script, not a secret)
            for _ in range(1_000):
                key = str(source.randrange(60))
                if cache.get(key) is None:
                    cache.put(key, 1)
            contents.append([cache.get(str(number)) is not None for number in range(60)])
        _same("the second time", contents[1], contents[0])


def value_of(key: str) -> int:
    """The value of a key: never one of another key, never None."""
    return int(key) + 1


class SerializerContract:
    """Tests for one `LogSerializer`: give ``make``."""

    def make(self) -> LogSerializer:
        """A new serializer."""
        raise NotImplementedError

    def commands(self) -> list[Command]:
        """Commands that use every field at its limits."""
        full = Command(
            id="i" * 128,
            type="domain.verb_noun@65535",
            key="k" * 128,
            data=msgspec.Raw(_encode({"text": "ü🙂\0", "list": list(range(300)), "none": None})),
            tenant="tenant",
            principal="principal",
            expected_version=2**63 - 1,
            issued_at=0,
            correlation_id="",
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            key_id=7,
        )
        return [command(0), full, command(2, tenant="other"), full]

    def outcomes(self) -> list[Outcome]:
        """Outcomes of every status, with and without what is optional."""
        events = msgspec.Raw(_encode([["posted", "a", 10**18], ["posted", "b", -1]]))
        failure = Failure("VERSION_MISMATCH", "expected 1, found 2", "/expected_version", 2)
        return [
            Outcome(0, Status.ACCEPTED, 1, NIL, EMPTY_ARRAY),
            Outcome(2**40, Status.ACCEPTED, 2**40, msgspec.Raw(_encode({"r": 1})), events),
            Outcome(2, Status.REJECTED, 0, NIL, EMPTY_ARRAY, failure),
            Outcome(3, Status.INTERNAL, 0, NIL, EMPTY_ARRAY, Failure("INTERNAL", "")),
            Outcome(4, Status.ACCEPTED, 3, NIL, events, None, msgspec.Raw(_encode([["m"]]))),
        ]

    def test_its_codec_is_one_that_headers_can_name(self) -> None:
        """1 is shipped, 64 to 255 are for users, the rest is reserved."""
        codec = self.make().codec
        _true(f"codec {codec} is 1 or 64 to 255", codec == 1 or 64 <= codec <= 255)

    def test_commands_come_back_as_they_were(self) -> None:
        """Also none, and also from another instance: the log outlives the process."""
        for commands in ([], self.commands()[:1], self.commands()):
            payload = self.make().encode_commands(commands)
            _same("type of a payload", type(payload), bytes)
            _same("decoded commands", self.make().decode_commands(payload), commands)

    def test_outcomes_come_back_as_they_were(self) -> None:
        """Also none, and also from another instance."""
        for outcomes in ([], self.outcomes()[:1], self.outcomes()):
            payload = self.make().encode_outcomes(outcomes)
            _same("type of a payload", type(payload), bytes)
            _same("decoded outcomes", self.make().decode_outcomes(payload), outcomes)

    def test_the_same_content_is_the_same_bytes(self) -> None:
        """The state chain is made of OUTCOMES payloads, so replicas must agree on each byte."""
        one, other = self.make(), self.make()
        for _ in range(2):
            _same(
                "commands again",
                other.encode_commands(self.commands()),
                one.encode_commands(self.commands()),
            )
            payload = one.encode_outcomes(self.outcomes())
            _same("outcomes again", other.encode_outcomes(self.outcomes()), payload)
            decoded = one.decode_outcomes(payload)
            _same("outcomes decoded and encoded", one.encode_outcomes(decoded), payload)

    def test_what_is_cut_or_made_up_is_a_value_error(self) -> None:
        """A payload that nobody encoded is refused, not guessed."""
        serializer = self.make()
        commands = serializer.encode_commands(self.commands())
        outcomes = serializer.encode_outcomes(self.outcomes())
        for length in range(len(commands)):
            _refused(serializer.decode_commands, commands[:length])
        for length in range(len(outcomes)):
            _refused(serializer.decode_outcomes, outcomes[:length])
        for longer in (commands + b"\0", b"\xc1" + commands, b"\xff" * 40):
            _refused(serializer.decode_commands, longer)
        for longer in (outcomes + b"\0", b"\xc1" + outcomes, b"\xff" * 40):
            _refused(serializer.decode_outcomes, longer)


def _refused(decode: Any, payload: bytes) -> None:
    try:
        decoded = decode(payload)
    except ValueError:
        return
    raise AssertionError(f"{payload[:40]!r} ({len(payload)} bytes) decoded as {decoded!r}")


class CompactionContract:
    """Tests for one `CompactionPolicy`: give ``make``."""

    def make(self) -> CompactionPolicy:
        """A new policy."""
        raise NotImplementedError

    def ages_us(self) -> Sequence[int]:
        """Ages to ask about, in microseconds: from nothing to ten years."""
        return [0, 1, 10**6, 3_600 * 10**6, 86_400 * 10**6, 365 * 86_400 * 10**6, 10**14 * 3]

    def test_it_has_a_name(self) -> None:
        """Reports and options name it."""
        name = self.make().name
        _true(f"{name!r} is a short lower-case name", 0 < len(name) <= 32 and name == name.lower())

    def test_it_answers_yes_or_no_and_the_same_again(self) -> None:
        """A function of the two instants: a repeated retention decides the same."""
        used = self.make()
        for sealed_at in (0, 1_767_225_600_000_000):
            for age in self.ages_us():
                sealed, now = Instant(sealed_at), Instant(sealed_at + age)
                answer = used.archive(sealed_at=sealed, now=now)
                _true("the answer is a bool", isinstance(answer, bool))
                _same("the answer again", used.archive(sealed_at=sealed, now=now), answer)
                _same("a new policy", self.make().archive(sealed_at=sealed, now=now), answer)

    def test_what_it_gave_up_it_does_not_want_back(self) -> None:
        """A segment that left the archive is gone, so a later yes would be a promise broken."""
        policy, sealed = self.make(), Instant(1_767_225_600_000_000)
        given_up = False
        for age in self.ages_us():
            wanted = policy.archive(sealed_at=sealed, now=Instant(sealed + age))
            _true(f"still not wanted at an age of {age} us", not (given_up and wanted))
            given_up |= not wanted
