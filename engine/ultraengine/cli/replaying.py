"""`ultra log replay DIRECTORY`: a shard's log evolved or decided again, from its files alone.

Changes nothing and takes no lock, so it may look at the directory of a running engine, as
`ultra log verify` does; it then sees a moment of it.  Without `--validate` no handler runs:
recorded events are evolved, and commands whose outcome is not recorded yet are left out; ids that
do not fit memory go to a temporary directory, as the shard's own go to its disk.  With it, a range
is decided with the code at hand; what handlers read of the past comes from the shard's history
below the snapshot, and above it from a history of its own in a temporary directory.
"""

import argparse
import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ultraengine.cli.directories import open_disk, open_secrets
from ultraengine.cli.domains import import_domains
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.offline import NO_HISTORY, evolve, overriding
from ultraengine.cli.output import plural, print_facts, print_json, say
from ultraengine.config import Config, ConfigErrors
from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.dedup_files.driver import RunStore
from ultraengine.execution.executor import Executor
from ultraengine.execution.history import DecodedCommands, DomainHistory
from ultraengine.execution.history_files.driver import DECODED_BYTES_MAX, HistoryFile
from ultraengine.execution.history_files.stored import StoredHistory
from ultraengine.execution.pipeline import EvolveFailed, NoDomain
from ultraengine.execution.registry import Registry
from ultraengine.extensions import Extensions
from ultraengine.log.reader import RecordedGroup
from ultraengine.log.standing import Standing, standing_log
from ultraengine.model.domain import History
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import NO_CHAIN, Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.ports import Disk, ObjectStore
from ultraengine.shard.image import ExecutorImage, readable
from ultraengine.shard.ownership import read_ownership
from ultraengine.shard.placement import Placement
from ultraengine.shard.slot_moves import SlotMoves
from ultraengine.shard.status import ReplayReport
from ultraengine.shard.validation import NothingRemembered, validate
from ultraengine.snapshot import tools as snapshots
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotError
from ultraengine.snapshot.image import ImagePosition, state_hash
from ultraengine.snapshot.manifest import plan_load
from ultraengine.snapshot.migrate import Migrations
from ultraengine.starting.loading import load_extensions
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.object_stores import open_store

SETTINGS: Final = ("ULTRA_DOMAINS", "ULTRA_SECRETS", "ULTRA_ARCHIVE", "ULTRA_EXTENSIONS")
"""Settings of `ultra serve` that count here too, besides the limits."""
EVERYTHING: Final = 1 << 62
"""An offset above all."""
FROM_START: Final = "With --from-start the log alone is read."
OTHER_DOMAINS: Final = "Name the domains that the data was written with: --domain or ULTRA_DOMAINS."


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What replaying recorded outcomes came to."""

    offset: int
    """First offset that was not replayed."""
    chain: str
    """Of the log after the last frame that was used; at its end, the one of `ultra log verify`."""
    state_hash: str
    """Equal hashes mean equal states, ids remembered included; a snapshot names its own."""
    from_offset: int
    """Where the snapshot ended; 0 without one."""
    replayed: int
    left_out: int
    """Commands behind them without a recorded outcome."""
    handlers: dict[str, int]
    slots: tuple[tuple[int, int], ...]
    """Ranges of slots that a start would take commands of; each excludes its end."""


class _Undecodable(ValueError):
    """A frame whose checksums are right and whose payload is not what its codec writes."""


class Opened(msgspec.Struct, frozen=True):
    """Everything that is known of a shard before its state is made."""

    disk: Disk
    snapshots: snapshots.Tools
    log: Standing
    registry: Registry
    limits: Limits

    @property
    def number(self) -> ShardId:
        """From the directory's IDENTITY."""
        return self.log.identity.shard


def replay_directory(options: argparse.Namespace) -> int:
    """Carry out the verb on `options.directory`.  Raises what `ultra log` translates."""
    try:
        shard = _open(options)
        return _validate(shard, options) if options.validate else _replay(shard, options)
    except ConfigErrors as error:
        raise CommandFailed(str(error)) from error
    except SnapshotDamaged as error:
        raise CommandFailed(str(error), advice=FROM_START, code=Exit.DAMAGED) from error
    except SnapshotError as error:
        raise CommandFailed(str(error)) from error
    except EngineError as error:
        raise CommandFailed(str(error), code=Exit.FINDINGS) from error
    except InvariantBroken as error:
        failed = isinstance(error, EvolveFailed) and not isinstance(error, NoDomain)
        advice = "" if failed else OTHER_DOMAINS
        raise CommandFailed(str(error), advice=advice, code=Exit.FINDINGS) from error
    except ValueError as error:
        raise CommandFailed(str(error), code=Exit.DAMAGED) from error


def _open(options: argparse.Namespace) -> Opened:
    known = {
        name: value
        for name, value in os.environ.items()
        if name in SETTINGS or name.startswith("ULTRA_LIMIT_")
    }
    config = Config.from_env(known)
    domains = import_domains(options.domain or config.domains)
    extensions: Extensions = load_extensions(config.extensions)
    disk, secrets = open_disk(options.directory), open_secrets(options.secrets or config.secrets)
    registry = Registry(domains, hooks=extensions.hooks, limits=config.limits)
    return Opened(
        disk,
        snapshots.Tools(
            disk=disk,
            secrets=secrets,
            codecs=Codecs(extensions.snapshot_codecs),
            migrations=Migrations(readable(registry), extensions.migrations),
        ),
        standing_log(
            disk,
            secrets,
            threading.Lock(),
            codecs=extensions.serializers,
            archive=_archive(options.archive or config.archive),
        ),
        registry,
        config.limits,
    )


def _archive(location: str | None) -> ObjectStore | None:
    if location is None:
        return None
    if "://" not in location and not Path(location).is_dir():
        raise CommandFailed(f"{location} is no directory")
    return open_store(location, changes=False)


def opened_shard(directory: Path, *, domains: Sequence[str] | None, secrets: Path | None) -> Opened:
    """A shard's directory, and what the environment says of reading it, as for this verb.

    Raises `ConfigErrors`, `CommandFailed`, `LogError`, `SnapshotError`, OSError.
    """
    named = argparse.Namespace(directory=directory, domain=domains, secrets=secrets, archive=None)
    return _open(named)


def replayed_state(shard: Opened) -> Replayed:
    """The state that a start would begin with, but for commands without a recorded outcome.

    Raises what loading and evolving raise, as a start would.
    """
    reader = _Reader(shard.log)
    everything = argparse.Namespace(end=None, from_start=False)
    return overriding(reader.groups, lambda skipped: _replayed(shard, reader, everything, skipped))


# --- the state to begin with --------------------------------------------------------------------

Loaded = tuple[ExecutorImage, Executor, ImagePosition | None]


def _loaded(shard: Opened, new_image: Callable[[], ExecutorImage], offset_max: int) -> Loaded:
    """The newest good snapshot that ends at or below an offset, or an empty state.

    Damaged files are named and left where they are.  Raises `SnapshotRefused`, and
    `SnapshotDamaged` for the list of snapshots itself.
    """
    entries = [
        entry
        for entry in (snapshots.listed(shard.snapshots) if offset_max else ())
        if entry.offset_end <= offset_max and entry.sequence_end <= shard.log.end.sequence
    ]
    unusable: set[str] = set()
    while True:
        image, position = new_image(), None
        for entry in plan_load(entries, unusable=unusable) or ():
            try:
                position = snapshots.load(shard.snapshots, image, entry)
            except (SnapshotDamaged, OSError) as error:
                say(f"ultra: {error}; an older state is used")
                unusable.add(entry.file)
                break
        else:
            if position is not None:
                _check_chain(shard.log, position)
            return image, image.resume(position), position


def _check_chain(log: Standing, position: ImagePosition) -> None:
    found = log.reader.chain_at(position.sequence_end)
    if found != position.chain:
        raise CommandFailed(
            f"the snapshot at offset {position.offset_end} was taken of another log: the chain "
            f"before frame {position.sequence_end} is {found.hex()} here and "
            f"{position.chain.hex()} there",
            advice=FROM_START,
            code=Exit.DAMAGED,
        )


# --- recorded outcomes --------------------------------------------------------------------------


class _Reader:
    """The log's groups with their payloads decoded.  Raises `_Undecodable` with the offset."""

    def __init__(self, log: Standing, between: Callable[[], None] = lambda: None) -> None:
        """`between`: called before each group; what it raises ends the reading."""
        self._log = log
        self._between = between

    def groups(self, from_offset: int, to_offset: int | None = None) -> Iterator[RecordedGroup]:
        """Groups that hold offsets from one on and below another, in order."""
        for group in self._log.reader.groups(from_offset, to_offset):
            self._between()
            try:
                # Both are kept by the group.
                _ = group.commands, group.outcomes
            except ValueError as error:
                at = group.header.base_offset
                raise _Undecodable(
                    f"offset {at}: the payload cannot be decoded: {error}"
                ) from error
            yield group


def _replay(shard: Opened, options: argparse.Namespace) -> int:
    reader = _Reader(shard.log)
    done = overriding(reader.groups, lambda skipped: _replayed(shard, reader, options, skipped))
    if options.end is not None and done.offset < options.end:
        raise CommandFailed(f"outcomes are recorded below offset {done.offset}, not {options.end}")
    _print(done, options.output)
    return Exit.OK


def _replayed(
    shard: Opened, reader: _Reader, options: argparse.Namespace, skipped: frozenset[int]
) -> Replayed:
    end = EVERYTHING if options.end is None else options.end
    with (
        tempfile.TemporaryDirectory(prefix="ultra-replay-") as directory,
        contextlib.closing(_Ids(shard, Path(directory))) as ids,
    ):
        loaded = _loaded(shard, ids.new_image, 0 if options.from_start else end)
        image, executor, position = loaded
        executor.skipped |= skipped
        start = int(executor.applied_end)
        chain, left_out = _evolve(reader, executor, ids, position, end)
        return Replayed(
            offset=int(executor.applied_end),
            chain=chain.hex(),
            state_hash=state_hash(image.sections(full=True)).hex(),
            from_offset=start,
            replayed=int(executor.applied_end) - start,
            left_out=left_out,
            handlers=shard.registry.handlers,
            slots=Placement(executor, read_ownership(shard.disk)).ranges(),
        )


class _Ids:
    """The ids that the shard remembers: those that it would have on disk are in a directory."""

    def __init__(self, shard: Opened, directory: Path) -> None:
        self._shard = shard
        self._directory = directory
        self._kept: list[tuple[DedupIndex, RunStore]] = []
        """The last one is that of the newest image."""

    def new_image(self) -> ExecutorImage:
        """An empty image that forgets the same ids as the shard's own."""
        shard, place = self._shard, f"ids-{len(self._kept)}"
        runs = RunStore(
            LocalDisk(self._directory), shard.number, log_end=0, spawn=_at_once, directory=place
        )
        dedupe = DedupIndex(DedupOptions.of(shard.limits), runs)
        self._kept.append((dedupe, runs))
        executor = Executor(
            shard.registry, shard.number, dedupe=dedupe, history=NO_HISTORY, moves=SlotMoves()
        )
        return ExecutorImage(executor, dedupe)

    def advance(self, time: Instant, offset_end: Offset) -> None:
        """A group ended: what is too old leaves, what is too much for memory goes to the disk."""
        dedupe, runs = self._kept[-1]
        dedupe.advance(time, offset_end)
        while runs.turn(dedupe):
            pass
        dedupe.take_facts()

    def close(self) -> None:
        """Release the files."""
        for _, runs in self._kept:
            runs.close()


def _at_once(task: Callable[[], None]) -> None:
    task()


def _evolve(
    reader: _Reader, executor: Executor, ids: _Ids, position: ImagePosition | None, end: int
) -> tuple[bytes, int]:
    """Replay up to an offset; (chain after the last frame that was used, commands left out)."""
    chain = NO_CHAIN if position is None else position.chain
    left_out = 0
    if executor.applied_end >= end:
        return chain, left_out
    for group in reader.groups(executor.applied_end, end):
        last = group.last_frame
        if last is None:
            left_out += group.header.count
            continue
        evolve(executor, group, end)
        if executor.applied_end == group.header.offset_end:
            ids.advance(Instant(group.header.time), executor.applied_end)
        chain = last.chain
    return chain, left_out


def _print(done: Replayed, output: str) -> None:
    if output == "json":
        print_json(done)
        return
    print_facts(
        {
            "begun at": f"offset {done.from_offset}" if done.from_offset else "an empty state",
            "replayed": plural(done.replayed, "command"),
            "offsets below": done.offset,
            "chain": done.chain,
            "state hash": done.state_hash,
            "handlers": done.handlers,
        }
    )
    if done.left_out:
        say(f"ultra: {plural(done.left_out, 'command')} without a recorded outcome left out")


# --- deciding again -----------------------------------------------------------------------------


class _History:
    """The shard's own history below a snapshot's end, and one that grows from there."""

    def __init__(self, shard: Opened, directory: Path) -> None:
        self._shard = shard
        self._decoders = shard.registry.decoders
        self._growing = HistoryFile(LocalDisk(directory), shard.number, self._decoders)
        self._stored = StoredHistory(shard.disk, shard.number, 0)
        self._below = 0

    def begin(self, position: ImagePosition | None) -> None:
        """Before anything is appended: where the state that was loaded ends."""
        if position is not None:
            self._below = position.offset_end
            self._stored = StoredHistory(self._shard.disk, self._shard.number, position.history_end)
        self._growing.truncate_to(0, self._below)

    def append(self, offset: int, domain: str, payload: bytes, /) -> None:
        """Keep the encoded events of a command that was evolved or decided."""
        self._growing.append(offset, domain, payload)

    def append_run(self, offset: int, domain: str, payloads: Sequence[bytes], /) -> None:
        """The same of commands at consecutive offsets."""
        self._growing.append_run(offset, domain, payloads)

    def view(self, domain: str, visible_end: Callable[[], int], /) -> History:
        """Reads of one domain."""
        kept = DecodedCommands(DECODED_BYTES_MAX)
        return DomainHistory(domain, self._read, self._decoders[domain], kept, visible_end)

    def _read(self, offset: int, domain: str) -> bytes | None:
        source = self._stored if offset < self._below else self._growing
        return source.read(offset, domain)

    def close(self) -> None:
        """Release the files."""
        self._growing.close()


def _validate(shard: Opened, options: argparse.Namespace) -> int:
    start = _lowest(shard) if options.start is None else options.start
    log = shard.log
    if not log.first_offset <= start <= log.end.offset:
        raise CommandFailed(
            f"the log has offsets from {log.first_offset} to {log.end.offset}, and not {start}"
        )
    if options.end is not None and options.end <= start:
        raise CommandFailed(f"nothing lies from offset {start} on and below {options.end}")
    reader = _Reader(log)
    report, _ = overriding(
        reader.groups, lambda skipped: _decided(shard, reader, start, options, skipped)
    )
    if report.equal and options.end is not None and report.to_offset < options.end:
        raise CommandFailed(
            f"outcomes are recorded below offset {report.to_offset}, not {options.end}"
        )
    if not report.compared and report.equal:
        nothing = f"nothing is recorded from offset {start} on that can be compared"
        if options.start is not None or options.end is not None:
            raise CommandFailed(nothing)
        say(f"ultra: {nothing}")
    print_json(report)
    return Exit.OK if report.equal else Exit.FINDINGS


def _decided(
    shard: Opened,
    reader: _Reader,
    start: int,
    options: argparse.Namespace,
    skipped: frozenset[int],
    *,
    hashed: bool = False,
) -> tuple[ReplayReport, str]:
    """What deciding came to, and where `hashed` the hash of the state there."""
    nothing = NothingRemembered()
    with (
        tempfile.TemporaryDirectory(prefix="ultra-replay-") as directory,
        contextlib.closing(_History(shard, Path(directory))) as history,
    ):

        def new_image() -> ExecutorImage:
            executor = Executor(
                shard.registry, shard.number, dedupe=nothing, history=history, moves=SlotMoves()
            )
            return ExecutorImage(executor, nothing)

        image, executor, position = _loaded(shard, new_image, 0 if options.from_start else start)
        executor.skipped |= skipped
        history.begin(position)
        report = validate(executor, reader, from_offset=start, to_offset=options.end)
        wanted = hashed and report.equal
        return report, state_hash(image.sections(full=True)).hex() if wanted else ""


def decided_state(shard: Opened, between: Callable[[], None]) -> tuple[ReplayReport, str]:
    """Decide everything again that can be, from the oldest state on; the hash of the last one.

    `between` is called before each group.  Raises what it raises, and as a start would.
    """
    reader, start = _Reader(shard.log, between), _lowest(shard)
    everything = argparse.Namespace(end=None, from_start=False)
    return overriding(
        reader.groups,
        lambda skipped: _decided(shard, reader, start, everything, skipped, hashed=True),
    )


def _lowest(shard: Opened) -> int:
    """Where deciding can begin: the beginning, or the oldest state that the log leads on from."""
    first = shard.log.first_offset
    states = [entry.offset_end for entry in snapshots.listed(shard.snapshots)]
    return min((end for end in states if end >= first > 0), default=first)
