"""One snapshot file on a disk: write it, prove it, read it.

Functions of a `Disk` and values, without state: a forked child calls them with a disk of its
own.  They raise `SnapshotDamaged`, `SnapshotRefused`, `SnapshotFailed`, or the disk's OSError.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from ultraengine.ports import Disk
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.compact import BATCH_BYTES, SlotGroup, fold, merge_slots, rebuild
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotFailed
from ultraengine.snapshot.format import Footer, Header
from ultraengine.snapshot.image import Image, Section, StateHash
from ultraengine.snapshot.loader import KeyOf, SnapshotFile, open_snapshot
from ultraengine.snapshot.manifest import SnapshotEntry
from ultraengine.snapshot.migrate import NO_MIGRATIONS, Migrations
from ultraengine.snapshot.writer import BLOCK_BYTES, SnapshotWriter

SYNC_BYTES: Final = 1024 * 1024
"""Written bytes after which a file is synced: the log's own syncs never queue behind more."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that is to be written, with everything that chance and keys have to say."""

    header: Header
    data_key: bytes | None
    number: int
    name: str
    """Final file name."""
    directory: str
    compress: bool = True
    block_bytes: int = BLOCK_BYTES
    sync_bytes: int = SYNC_BYTES

    @property
    def path(self) -> str:
        """Where it will stand."""
        return f"{self.directory}/{self.name}"

    @property
    def temporary(self) -> str:
        """Where it is written."""
        return f"{self.directory}/{self.name}.tmp"


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written and synced."""

    bytes: int
    footer: Footer


class ChainFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a chain, with its data key where it is known."""

    path: str
    data_key: bytes | None = None
    entry: SnapshotEntry | None = None
    """As listed, to be compared with what is there."""


def no_pause(_: int) -> None:
    """Write as fast as the disk takes it."""


def write_file(
    disk: Disk,
    draft: Draft,
    sections: Iterable[Section],
    codecs: Codecs,
    *,
    state_hash: Callable[[bytes], bytes | None],
    pause: Callable[[int], None] = no_pause,
) -> Written:
    """Write and sync the temporary file.

    `state_hash` gets the content hash once all sections were written, and says the state hash.
    `pause` is called after each partial sync with the bytes since the one before.
    """
    writer = SnapshotWriter(
        draft.header,
        codecs.get(draft.header.codec, draft.path),
        data_key=draft.data_key,
        compress=draft.compress,
        block_bytes=draft.block_bytes,
    )
    file = disk.open(draft.temporary, create=True, write=True)
    with contextlib.closing(file):
        file.truncate(0)
        position, synced = 0, 0

        def put(data: bytes) -> None:
            nonlocal position, synced
            if data:
                file.pwrite(data, position)
                position += len(data)
            if position - synced >= draft.sync_bytes:
                file.sync()
                pause(position - synced)
                synced = position

        put(writer.start())
        for section in sections:
            put(writer.add(section))
        put(writer.finish(state_hash(writer.content_hash)))
        file.sync()
    return Written(bytes=position, footer=writer.footer)


@contextlib.contextmanager
def opened(disk: Disk, file: ChainFile, codecs: Codecs, key_of: KeyOf) -> Iterator[SnapshotFile]:
    """An open snapshot; what the manifest says of it is compared."""
    try:
        handle = disk.open(file.path)
    except FileNotFoundError:
        raise SnapshotDamaged(file.path, 0, "there is no such file") from None
    with contextlib.closing(handle):
        found = open_snapshot(handle, file.path, codecs, key_of=key_of, data_key=file.data_key)
        listed = file.entry
        if listed is not None and listed.content_hash != found.footer.content_hash.hex():
            raise SnapshotDamaged(file.path, found.footer.position, "another file than listed")
        yield found


@contextlib.contextmanager
def opened_chain(
    disk: Disk, chain: Sequence[ChainFile], codecs: Codecs, key_of: KeyOf
) -> Iterator[list[SnapshotFile]]:
    """All files of a chain, the full image first."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(opened(disk, file, codecs, key_of)) for file in chain]


class Schemas:
    """Which schemas of which section names went by."""

    def __init__(self) -> None:
        self.seen: dict[str, set[int]] = {}

    def watch(self, sections: Iterable[Section]) -> Iterator[Section]:
        """The same sections, noted."""
        for section in sections:
            self.seen.setdefault(section.name, set()).add(section.schema)
            yield section

    def differ(self, other: "Schemas") -> bool:
        """Whether a name that both have seen had different schemas."""
        both = self.seen.keys() & other.seen.keys()
        return any(self.seen[name] != other.seen[name] for name in both)


def groups_of(
    files: Sequence[SnapshotFile], migrations: Migrations, schemas: Schemas
) -> Iterator[SlotGroup]:
    """The sections of a chain by slot, in the schemas of this process; `schemas` as stored."""
    return merge_slots(
        [
            (now for each in schemas.watch(file.sections()) for now in migrations.forward(each))
            for file in files
        ]
    )


def verify_chain(
    disk: Disk,
    chain: Sequence[ChainFile],
    codecs: Codecs,
    key_of: KeyOf,
    *,
    expected: Footer | None = None,
    new_image: Callable[[], Image] | None = None,
    migrations: Migrations = NO_MIGRATIONS,
    batch_bytes: int = BATCH_BYTES,
) -> bool:
    """Read the last file of `chain` from its first to its last byte and compare everything.

    With `new_image`, and where the state hash is known, the whole chain is loaded too and what
    it loads to must have that hash.  Returns whether that was compared: an image that writes
    other schemas than the file has cannot tell.  Raises `SnapshotDamaged`, or `SnapshotFailed`
    for a footer or state other than what it should be.
    """
    tip = chain[-1]
    with opened_chain(disk, chain if new_image else [tip], codecs, key_of) as files:
        last = files[-1]
        if expected is not None and last.footer != expected:
            raise SnapshotFailed(f"{tip.path} does not end with the footer that was written")
        if new_image is None or last.footer.state_hash is None:
            for _ in last.sections():
                pass
            return False
        digest, read, dumped = StateHash(), Schemas(), Schemas()
        groups = groups_of(files, migrations, read)
        for section in dumped.watch(rebuild(groups, new_image, batch_bytes=batch_bytes)):
            digest.add(section)
        if read.differ(dumped):
            return False
        if digest.value() != last.footer.state_hash:
            raise SnapshotFailed(f"{tip.path} loads to another state than it was taken from")
        return True


def merge_chain(
    disk: Disk,
    chain: Sequence[ChainFile],
    draft: Draft,
    codecs: Codecs,
    key_of: KeyOf,
    *,
    new_image: Callable[[], Image] | None,
    migrations: Migrations = NO_MIGRATIONS,
    batch_bytes: int = BATCH_BYTES,
    pause: Callable[[int], None] = no_pause,
) -> Written:
    """Write the full image that `chain` loads to, with `new_image` as a fresh dump, else folded.

    Raises `SnapshotFailed` when a fresh dump has another hash than the last increment told.
    """
    with opened_chain(disk, chain, codecs, key_of) as files:
        known = files[-1].footer.state_hash
        read, dumped = Schemas(), Schemas()
        if new_image is None:
            # Chunks stay as they are, in the schemas that the state hash was told for.
            folded = fold(groups_of(files, NO_MIGRATIONS, read))
            return write_file(disk, draft, folded, codecs, state_hash=lambda _: known, pause=pause)
        groups = groups_of(files, migrations, read)

        def checked(content: bytes) -> bytes:
            if known is not None and content != known and not read.differ(dumped):
                raise SnapshotFailed(f"{chain[-1].path} merges to another state than it told")
            return content

        sections = dumped.watch(rebuild(groups, new_image, batch_bytes=batch_bytes))
        return write_file(disk, draft, sections, codecs, state_hash=checked, pause=pause)
