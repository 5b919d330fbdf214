"""A target that is a directory of JSON lines, for stores that the engine does not know.

    DIR/sets.json                                 sets, their states
    DIR/requests.json                             what persons have asked
    DIR/ledger -> ledger__v1_b2                   the set that serves
    DIR/ledger__v1_b2/schema.json                 tables, columns, folds
    DIR/ledger__v1_b2/entry/2026-01-31.jsonl      rows, by the UTC day in which they were booked
    DIR/ledger__v1_b2/checkpoint.json             positions, and how long each file is

A write appends lines, syncs the files, and then replaces the checkpoint.  What stands behind
the lengths of the checkpoint (a torn line, lines of a write that did not end) is cut when the
target is opened and before lines are appended there.  A reader that stops at those lengths sees
every row once; one that follows the files' ends may see lines that are cut and written again: at
least once, and repeats have the same key, or the same (shard, log_offset, event) where a table has
these.  A file may be taken away by whoever has read it; one that is shorter than its checkpoint
says is damage.

Writers take turns by a lock on the directory, and the positions fence all but one.  Aggregates are
not computed; keys and CHECKs are not guarded; only APPEND tables have checksums.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import xxhash

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Projection, Table, TableKind
from ultraengine.projection.fold import Batch
from ultraengine.projection.lines.lines import (
    appended_lines,
    current_lines,
    schema_of,
    written_tables,
)
from ultraengine.projection.own_thread.driver import OwnThread
from ultraengine.projection.partitions import kept_from
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Checksum,
    Fenced,
    Moved,
    Parked,
    ProjectionSet,
    Request,
    RowRefused,
    SetState,
    TargetUnavailable,
)

T = TypeVar("T")

SCHEME: Final = "lines:///"
_ENCODE: Final = msgspec.json.Encoder().encode


class _Checkpoint(msgspec.Struct):
    """`checkpoint.json`."""

    positions: dict[ShardId, Checkpoint] = {}
    lengths: dict[str, int] = {}
    """Bytes of each file, by its path below the set's directory."""


class _Request(msgspec.Struct):
    projection: str
    request: Request
    asked_at: Instant


def directory_of(url: str) -> Path:
    """``lines:///relative`` or ``lines:////an/absolute/directory``.

    Raises `InvariantBroken` for another shape.
    """
    path = url.removeprefix(SCHEME)
    if path == url or not path:
        raise InvariantBroken(f"a URL of lines is {SCHEME}directory", url=url)
    return Path(path)


class LinesTarget:
    """Implements `projection.target.Target`; `exactly_once` is False."""

    dialect: Final = "lines"
    exactly_once: Final = False

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._root = directory_of(url)
        self._thread = OwnThread(f"lines {name}")

    async def _run(self, step: Callable[[], T]) -> T:
        def locked() -> T:
            try:
                with _lock(self._root):
                    return step()
            except OSError as error:
                raise TargetUnavailable(f"{self._root}: {error}") from error

        return await self._thread.run(locked)

    async def open(self) -> None:
        """`Target.open`.  The directory is made where its parent is there."""
        self._thread.start()
        await self._thread.run(self._make)
        await self._run(self._mend)

    def _mend(self) -> None:
        """Cut what crashes have left."""
        for of in self._read_sets():
            directory, lengths = self._directory(of), self._checkpoint(of).lengths
            for path in sorted(directory.glob("*/*.jsonl")):
                name = path.relative_to(directory).as_posix()
                if name in lengths:
                    _cut(path, lengths[name])
                else:
                    path.unlink()

    def _make(self) -> None:
        try:
            self._root.mkdir(exist_ok=True)
        except OSError as error:
            raise TargetUnavailable(f"{self._root}: {error}") from error

    async def close(self) -> None:
        """`Target.close`."""
        await self._thread.stop(lambda: None)

    # --- sets ----------------------------------------------------------------------------

    def _read_sets(self) -> list[ProjectionSet]:
        return _read(self._root / "sets.json", list[ProjectionSet], [])

    def _write_sets(self, sets: Sequence[ProjectionSet]) -> None:
        ordered = sorted(sets, key=lambda one: (one.projection, one.build))
        _replace(self._root / "sets.json", _ENCODE(ordered))

    def _directory(self, of: ProjectionSet) -> Path:
        return self._root / f"{of.projection}__{of.suffix}"

    async def sets(self) -> Sequence[ProjectionSet]:
        """`Target.sets`."""
        return await self._run(self._read_sets)

    async def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        """`Target.create`."""
        return await self._run(lambda: self._create(projection, build, now))

    def _create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        sets = self._read_sets()
        for one in sets:
            if (one.projection, one.build) == (projection.name, build):
                return one
        made = ProjectionSet(
            projection.name, projection.version, build, SetState.BUILDING, now, now
        )
        directory = self._directory(made)
        # What a crash has left of an earlier attempt is no part of this one.
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for table in written_tables(projection):
            (directory / table.name).mkdir()
        _replace(directory / "schema.json", schema_of(projection))
        self._write_sets([*sets, made])
        return made

    def _change(self, of: ProjectionSet, **fields: Any) -> None:
        self._write_sets(
            [
                msgspec.structs.replace(one, **fields)
                if (one.projection, one.build) == (of.projection, of.build)
                else one
                for one in self._read_sets()
            ]
        )

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:  # noqa: ARG002  (its tables are all in one directory)
        """`Target.serve`: the link ``DIR/<projection>`` shows the set."""
        await self._run(lambda: self._serve(of, now))

    def _serve(self, of: ProjectionSet, now: Instant) -> None:
        sets = self._read_sets()
        states = {(one.projection, one.build): one.state for one in sets}
        if states.get((of.projection, of.build)) in {SetState.SERVING, None}:
            return
        link = self._root / of.projection
        fresh = self._root / f".{of.projection}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._directory(of).name)
        fresh.replace(link)
        for one in sets:
            if one.projection == of.projection and one.state is SetState.SERVING:
                self._change(one, state=SetState.RETIRED, changed_at=now)
        self._change(of, state=SetState.SERVING, changed_at=now)

    async def drop(self, of: ProjectionSet, tables: Sequence[str], now: Instant) -> None:  # noqa: ARG002  (all that is in the directory goes)
        """`Target.drop`."""
        await self._run(lambda: self._drop(of))

    def _drop(self, of: ProjectionSet) -> None:
        left = []
        for one in self._read_sets():
            if (one.projection, one.build) != (of.projection, of.build):
                left.append(one)
            elif one.state is SetState.SERVING:
                raise InvariantBroken("a set that serves is not dropped", set=of.suffix)
        self._write_sets(left)
        shutil.rmtree(self._directory(of), ignore_errors=True)

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        """`Target.park`."""
        await self._run(lambda: self._change(of, parked=parked))

    async def pause(self, of: ProjectionSet, *, paused: bool) -> None:
        """`Target.pause`."""
        await self._run(lambda: self._change(of, paused=paused))

    async def ask(self, projection: str, request: Request, now: Instant) -> None:
        """`Target.ask`."""
        await self._run(lambda: self._ask(_Request(projection, request, now)))

    def _ask(self, request: _Request) -> None:
        path = self._root / "requests.json"
        _replace(path, _ENCODE([*_read(path, list[_Request], []), request]))

    async def requests(self) -> Sequence[tuple[str, Request]]:
        """`Target.requests`."""
        return await self._run(self._requests)

    def _requests(self) -> list[tuple[str, Request]]:
        path = self._root / "requests.json"
        found: list[_Request] = _read(path, list[_Request], [])
        if found:
            _replace(path, _ENCODE([]))
        return [(one.projection, one.request) for one in found]

    # --- rows ----------------------------------------------------------------------------

    def _checkpoint(self, of: ProjectionSet) -> _Checkpoint:
        return _read(self._directory(of) / "checkpoint.json", _Checkpoint, _Checkpoint())

    async def positions(self, of: ProjectionSet) -> Mapping[ShardId, Checkpoint]:
        """`Target.positions`."""
        return await self._run(lambda: self._checkpoint(of).positions)

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        """`Target.write`: rows, then the checkpoint."""
        await self._run(lambda: self._write(of, projection, batch, moved))

    def _write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        if (of.projection, of.build) not in {
            (one.projection, one.build) for one in self._read_sets()
        }:
            raise Fenced(f"{of.projection} {of.suffix} is gone")
        checkpoint = self._checkpoint(of)
        for move in moved:
            if checkpoint.positions.get(move.shard, START) != move.before:
                raise Fenced(f"shard {move.shard} of {of.projection} is not at {move.before}")
            checkpoint.positions[move.shard] = move.after
        contents = {table.name: _encoded(table, batch) for table in written_tables(projection)}
        directory, lengths = self._directory(of), checkpoint.lengths
        day = _day(max((move.after.time for move in moved), default=Instant(0)))
        for name, content in contents.items():
            if content:
                file = f"{name}/{day}.jsonl"
                lengths[file] = _append(directory / file, lengths.get(file, 0), content)
        _replace(directory / "checkpoint.json", _ENCODE(checkpoint))

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:  # noqa: ARG002  (there is nothing to compute)
        """`Target.refresh`: aggregates are the reader's to compute."""
        return 0

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """`Target.keep`: files of days past their keep are removed."""
        await self._run(lambda: self._keep(of, projection, now))

    def _keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        directory, checkpoint = self._directory(of), self._checkpoint(of)
        gone: list[str] = []
        for table in projection.tables:
            if table.partition is not None and table.partition.keep_days is not None:
                start = kept_from(table.partition, table.partition.keep_days, now)
                first = date(1970, 1, 1).toordinal() + start
                gone += [
                    name
                    for name in checkpoint.lengths
                    if name.startswith(f"{table.name}/")
                    and date.fromisoformat(Path(name).stem).toordinal() < first
                ]
        for name in gone:
            del checkpoint.lengths[name]
        if gone:
            _replace(directory / "checkpoint.json", _ENCODE(checkpoint))
        for name in gone:
            (directory / name).unlink(missing_ok=True)

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        """`Target.checksums`, of APPEND tables: how lines of others are cut says nothing."""
        return await self._run(lambda: self._checksums(of, tables))

    def _checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> dict[str, Checksum]:
        found: dict[str, Checksum] = {}
        for table in tables:
            if table.kind is TableKind.APPEND:
                count, digest = 0, 0
                for line in confirmed_lines(self._directory(of), table):
                    count += 1
                    digest += xxhash.xxh3_128_intdigest(line)
                found[table.name] = Checksum(count, f"{digest % (1 << 128):032x}")
        return found


def confirmed_lines(directory: Path, table: Table) -> Iterator[bytes]:
    """Lines of a table below the lengths of the checkpoint, in the order of days and writes."""
    lengths = _read(directory / "checkpoint.json", _Checkpoint, _Checkpoint()).lengths
    for name, length in sorted(lengths.items()):
        if name.startswith(f"{table.name}/") and (directory / name).exists():
            with (directory / name).open("rb") as file:
                yield from file.read(length).splitlines(keepends=True)


def _encoded(table: Table, batch: Batch) -> bytes:
    """Lines of one table.  Raises `RowRefused`."""
    try:
        if table.kind is TableKind.APPEND:
            return appended_lines(table, batch.appended[table.name])
        return current_lines(table, batch.current[table.name])
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        raise RowRefused(f"table {table.name}: {error}") from error


def _day(time: Instant) -> str:
    return datetime.fromtimestamp(time // 1_000_000, UTC).date().isoformat()


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Nobody else writes below the directory meanwhile."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path, kind: Any, default: T) -> T:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return default
    try:
        found: T = msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise TargetUnavailable(f"{path}: {error}") from error
    return found


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place of another, whole or not at all."""
    fresh = path.with_name(f".{path.name}")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_directory(path.parent)


def _append(path: Path, length: int, content: bytes) -> int:
    """Append behind `length`, if the file is there, and sync; the file's new length."""
    if path.exists():
        _cut(path, length)
    with path.open("ab") as file:
        is_new = file.tell() == 0
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        end = file.tell()
    if is_new:
        _sync_directory(path.parent)
    return end


def _cut(path: Path, length: int) -> None:
    """Cut what stands behind `length`.  Raises `TargetUnavailable` for a file that is shorter."""
    size = path.stat().st_size
    if size < length:
        raise TargetUnavailable(f"{path} has {size} bytes, its checkpoint says {length}")
    if size > length:
        os.truncate(path, length)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
