"""What operators do with snapshots (`ultra snapshot list | verify | info | compact | convert`).

Functions with typed results; the command line prints them.  Those that change files take the
shard's lock first, so they refuse (`BlockingIOError`) while the engine has the directory open;
those that only read may run beside it.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from ultraengine.model.ids import Offset
from ultraengine.ports import Clock, Disk, Random, Secrets
from ultraengine.snapshot.codec import Codecs, JsonCodec
from ultraengine.snapshot.errors import SnapshotError, SnapshotFailed
from ultraengine.snapshot.files import (
    ChainFile,
    Written,
    opened,
    verify_chain,
    write_file,
)
from ultraengine.snapshot.format import Footer, Header
from ultraengine.snapshot.image import Image, ImagePosition, Section
from ultraengine.snapshot.loader import KeyOf, SnapshotFile
from ultraengine.snapshot.maker import Maker
from ultraengine.snapshot.manifest import (
    Manifest,
    SnapshotEntry,
    chain_of,
    decode_manifest,
    plan_load,
)
from ultraengine.snapshot.migrate import NO_MIGRATIONS, Migrations
from ultraengine.snapshot.store import MANIFEST, SnapshotOptions, SnapshotStore

LOCK: Final = "LOCK"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """Where the snapshots are, and what it takes to read them."""

    disk: Disk
    secrets: Secrets
    codecs: Codecs
    directory: str = "snapshots"
    new_image: Callable[[], Image] | None = None
    """Makes an empty image of the domains; without it states cannot be compared."""
    migrations: Migrations = NO_MIGRATIONS

    @property
    def key_of(self) -> KeyOf:
        """Master key by name."""
        return self.secrets.get


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All that header and footer of one file tell."""

    file: str
    bytes: int
    header: Header
    footer: Footer


class SectionTotal(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a file is of one name and schema."""

    name: str
    schema: int
    sections: int
    slots: int
    chunk_bytes: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What verifying one listed snapshot found."""

    entry: SnapshotEntry
    problem: str | None
    """The exact reason why it cannot be used; None when it can."""
    state_compared: bool
    """Whether its state was loaded and hashed, besides all checksums."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts on everything listed, and where a start would begin."""

    verdicts: tuple[Verdict, ...]
    usable_end: Offset | None
    """Offset end of the newest position that can be loaded; None when there is none."""

    @property
    def good(self) -> bool:
        """Whether nothing at all was wrong."""
        return all(verdict.problem is None for verdict in self.verdicts)


def listed(tools: Tools) -> tuple[SnapshotEntry, ...]:
    """`list`: the manifest.  Raises `SnapshotDamaged`; nothing when there is none."""
    path = f"{tools.directory}/{MANIFEST}"
    if not tools.disk.exists(path):
        return ()
    with contextlib.closing(tools.disk.open(path)) as file:
        manifest: Manifest = decode_manifest(file.pread(file.size(), 0), path)
    return manifest.entries


def load(tools: Tools, image: Image, entry: SnapshotEntry) -> ImagePosition:
    """Load the sections of one file, migrated, into an image; the position that it says.

    Raises `SnapshotError`, and what loading raises.
    """
    file = ChainFile(path=f"{tools.directory}/{entry.file}", entry=entry)
    with opened(tools.disk, file, tools.codecs, tools.key_of) as found:
        for stored in found.sections():
            for section in tools.migrations.forward(stored):
                image.load(section)
        return found.header.position


def info(tools: Tools, file: str) -> SnapshotInfo:
    """`info`: header and footer of one file; its blocks are not read."""
    with _opened(tools, file) as found:
        return SnapshotInfo(file=file, bytes=found.size, header=found.header, footer=found.footer)


def totals(tools: Tools, file: str) -> tuple[SectionTotal, ...]:
    """`info --sections`: what a file consists of; reads and checks all of it."""
    found: dict[tuple[str, int], list[int]] = {}
    slots: dict[tuple[str, int], int] = {}
    with _opened(tools, file) as snapshot:
        for section in snapshot.sections():
            name = (section.name, section.schema)
            total = found.setdefault(name, [0, 0, 0])
            total[0] += 1
            total[1] += slots.get(name) != section.slot
            total[2] += len(section.chunk)
            slots[name] = section.slot
    return tuple(
        SectionTotal(name=name, schema=schema, sections=count, slots=slot_count, chunk_bytes=size)
        for (name, schema), (count, slot_count, size) in sorted(found.items())
    )


def lines(tools: Tools, file: str) -> Iterator[bytes]:
    """`info --json`: the sections as lines of JSON; the file was good when this ends."""
    codec = JsonCodec()
    with _opened(tools, file) as snapshot:
        for section in snapshot.sections():
            yield codec.encode_section(section)


def verify(tools: Tools) -> Verification:
    """`verify`: read everything listed from the first to the last byte, and load it.

    Damage of one file is a verdict, not an error; so is a missing key or a newer format.
    """
    entries = listed(tools)
    verdicts = []
    unusable = []
    for entry in entries:
        problem, compared = None, False
        chain = chain_of(entry, entries)
        try:
            if chain is None:
                raise SnapshotFailed("no listed full image leads to it")
            compared = verify_chain(
                tools.disk,
                [ChainFile(path=f"{tools.directory}/{each.file}", entry=each) for each in chain],
                tools.codecs,
                tools.key_of,
                new_image=tools.new_image,
                migrations=tools.migrations,
            )
        except (SnapshotError, OSError) as reason:
            problem = str(reason)
            unusable.append(entry.file)
        verdicts.append(Verdict(entry=entry, problem=problem, state_compared=compared))
    chain = plan_load(entries, unusable=unusable)
    return Verification(
        verdicts=tuple(verdicts),
        usable_end=None if chain is None else Offset(chain[-1].offset_end),
    )


def compact(
    tools: Tools, options: SnapshotOptions, *, clock: Clock, random: Random
) -> SnapshotEntry:
    """`compact`: merge the newest chain into a full image; the image itself when it is alone.

    Raises `SnapshotFailed`, `SnapshotDamaged`, and BlockingIOError while the engine runs.
    """
    with _owned(tools, options, clock, random) as store:
        chain = store.newest_chain()
        if not chain:
            raise SnapshotFailed("there is no snapshot to merge")
        if len(chain) == 1:
            return chain[0]
        files = store.chain_files(chain)
        with store.open_file(files[-1]) as tip:
            position = tip.header.position
        draft = store.prepare(position, None, folded=tools.new_image is None)
        maker = Maker(store, new_image=tools.new_image, migrations=tools.migrations)
        try:
            written = maker.from_chain(tools.disk, files, draft, lambda _: None)
            return store.publish(draft, written)
        except BaseException:
            store.discard(draft)
            raise


def convert(
    tools: Tools,
    file: str,
    options: SnapshotOptions,
    *,
    clock: Clock,
    random: Random,
    schemas: Mapping[str, int] | None = None,
) -> SnapshotEntry:
    """`convert`: write a listed snapshot again with the codec, compression and key of `options`.

    With `schemas`, sections of these names are written in an older schema, for a downgrade,
    by the registered backward migrations; the state hash is then unknown until the older
    release takes its own.  The result stands beside the original, at the same position, and is
    what the next start loads.  A downgrade merges first (``compact``), so that there are no
    increments in the newer schema.  Raises `SnapshotRefused` without a migration.
    """
    with _owned(tools, options, clock, random) as store:
        entry = next((each for each in store.entries if each.file == file), None)
        if entry is None:
            raise SnapshotFailed(f"{file} is not listed")
        (source,) = store.chain_files([entry])
        with store.open_file(source) as found:
            draft = store.prepare(
                found.header.position, found.header.base, folded=found.header.folded
            )
            known = found.footer.state_hash if schemas is None else None
            try:
                written = write_file(
                    tools.disk,
                    draft,
                    _backward(found, tools.migrations, schemas or {}),
                    tools.codecs,
                    state_hash=lambda _: known,
                )
                _check_again(store, draft.temporary, draft.data_key, written)
                return store.publish(draft, written)
            except BaseException:
                store.discard(draft)
                raise


def _backward(
    found: SnapshotFile, migrations: Migrations, schemas: Mapping[str, int]
) -> Iterator[Section]:
    for section in found.sections():
        yield from migrations.backward(section, schemas)


def _check_again(store: SnapshotStore, path: str, data_key: bytes | None, written: Written) -> None:
    verify_chain(
        store.disk,
        [ChainFile(path=path, data_key=data_key)],
        store.codecs,
        store.key_of,
        expected=written.footer,
    )


@contextlib.contextmanager
def _opened(tools: Tools, file: str) -> Iterator[SnapshotFile]:
    path = ChainFile(path=f"{tools.directory}/{file}")
    with opened(tools.disk, path, tools.codecs, tools.key_of) as found:
        yield found


@contextlib.contextmanager
def _owned(
    tools: Tools, options: SnapshotOptions, clock: Clock, random: Random
) -> Iterator[SnapshotStore]:
    """The store, while nobody else has the shard's directory."""
    lock = tools.disk.lock(LOCK)
    try:
        named = msgspec.structs.replace(options, directory=tools.directory)
        store = SnapshotStore(tools.disk, clock, random, tools.secrets, named, codecs=tools.codecs)
        store.recover()
        yield store
    finally:
        lock.release()
