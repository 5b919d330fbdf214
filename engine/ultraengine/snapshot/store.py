"""The snapshots of one shard on one disk: which there are, which count, which go.

Everything goes through ports, and every change follows the order in `FORMAT.md`, so a crash
at any moment leaves what was listed before or after.  Calls block; the driver decides on
which thread, and sees to it that only one changes the store at a time.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import MIB
from ultraengine.ports import Clock, Disk, Random, Secrets
from ultraengine.snapshot.cipher import KEY_BYTES, NONCE_BYTES
from ultraengine.snapshot.codec import BINARY, Codecs
from ultraengine.snapshot.compact import BATCH_BYTES
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotFailed, SnapshotRefused
from ultraengine.snapshot.files import SYNC_BYTES, ChainFile, Draft, Schemas, Written, opened
from ultraengine.snapshot.format import NO_UID, BasePosition, Header
from ultraengine.snapshot.image import AnyImage, Image, ImagePosition, Section, state_hash
from ultraengine.snapshot.loader import SnapshotFile
from ultraengine.snapshot.manifest import (
    TEMPORARY_SUFFIX,
    Manifest,
    SnapshotEntry,
    decode_manifest,
    encode_manifest,
    entry_of,
    file_name,
    number_of,
    oldest_full,
    plan_load,
    retained,
)
from ultraengine.snapshot.migrate import NO_MIGRATIONS, Migrations
from ultraengine.snapshot.writer import BLOCK_BYTES, header_with_key

MANIFEST: Final = "MANIFEST"
BROKEN: Final = "broken"
DIRECTORY: Final = "snapshots"

Alarm = Callable[[str, Mapping[str, object]], None]
"""Called with a stable event name and its facts; never raises."""


def no_alarm(event: str, facts: Mapping[str, object]) -> None:
    """Nobody listens."""


class SnapshotOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the snapshots of one shard are written and kept.  Bytes and seconds."""

    shard: ShardId
    cluster_uid: bytes = NO_UID
    directory: str = DIRECTORY
    codec: int = BINARY
    compress: bool = True
    master_key: str | None = None
    """Name in `Secrets`; None = not encrypted."""
    block_bytes: int = BLOCK_BYTES
    fulls_kept: int = 2
    """Full images that are kept, with their increments; 2 survive damage of the newest one."""
    increments_max: int = 8
    """Longest chain on one full image; then the next one is full."""
    increments_share_max: float = 1.0
    """Increments of one chain together, relative to their full image; beyond it: full."""
    hash_increments: bool = True
    """Dump everything once more for the state hash of an increment (not when cooperative)."""
    sync_bytes: int = SYNC_BYTES
    write_bytes_per_s: int = 0
    """Write no faster than this; 0 = as fast as the disk takes it."""
    free_bytes_min: int = 64 * MIB
    """Space left besides the new file; less: no snapshot, so that the log keeps its reserve."""
    turn_s: float = 0.002
    """Longest turn of a cooperative snapshot on the event loop, unless one slot takes longer."""
    rest_s: float = 0.002
    """Pause between two turns."""
    captured_bytes_max: int = 256 * MIB
    """Compressed slots kept aside by a cooperative snapshot; beyond it, it is given up."""
    scratch_bytes: int = BATCH_BYTES
    """Chunks loaded at a time while a snapshot is proved or merged."""
    child_s_max: float = 900.0
    """Longest life of a forked child; then it is killed and the snapshot has failed."""


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What loading found."""

    chain: tuple[SnapshotEntry, ...] = ()
    """The files loaded, the full image first; empty = there was no usable snapshot."""
    damaged: Mapping[str, str] = {}
    """Files that could not be used, with the exact reason, in the order they were met."""
    state_hash_checked: bool = False
    schemas: Mapping[str, AbstractSet[int]] = {}
    """Schemas in which the sections of each name were stored."""
    sections: int = 0
    chunk_bytes: int = 0


def newest_sequence(disk: Disk, directory: str = DIRECTORY) -> int:
    """Frame sequence at which the newest listed snapshot was cut, 0 when none can be told.

    For whoever has not recovered a store yet: changes nothing, and believes the manifest.
    """
    names = disk.list(directory)
    if MANIFEST not in names:
        return 0
    with contextlib.closing(disk.open(f"{directory}/{MANIFEST}")) as file:
        try:
            manifest = decode_manifest(file.pread(file.size(), 0), MANIFEST)
        except SnapshotDamaged:
            return 0
    there = tuple(entry for entry in manifest.entries if entry.file in names)
    return max((entry.sequence_end for entry in plan_load(there) or ()), default=0)


class SnapshotStore:
    """Files and manifest of one shard."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        random: Random,
        secrets: Secrets,
        options: SnapshotOptions,
        *,
        codecs: Codecs | None = None,
        alarm: Alarm = no_alarm,
    ) -> None:
        if options.fulls_kept < 1:
            raise InvariantBroken("a shard keeps a snapshot", fulls_kept=options.fulls_kept)
        self.disk: Final = disk
        self.options: Final = options
        self.codecs: Final = codecs or Codecs()
        self.codecs.get(options.codec)
        self._clock = clock
        self._random = random
        self._secrets = secrets
        self._alarm = alarm
        self._directory = options.directory
        self._manifest = Manifest()
        self._data_keys: dict[str, bytes] = {}

    @property
    def entries(self) -> tuple[SnapshotEntry, ...]:
        """The verified snapshots, as listed."""
        return self._manifest.entries

    def key_of(self, name: str) -> bytes:
        """Master key by name.  Raises KeyError."""
        return self._secrets.get(name)

    def newest_chain(self) -> tuple[SnapshotEntry, ...]:
        """The chain that a start would load; empty when there is none."""
        return plan_load(self.entries) or ()

    def log_floor(self) -> SnapshotEntry | None:
        """The oldest listed full image.

        While the log is kept from its position on, every listed snapshot can be used, the
        older ones too when the newest turns out to be damaged.
        """
        return oldest_full(self.entries)

    # --- start ---------------------------------------------------------------------------

    def recover(self) -> None:
        """Read the manifest and remove what it does not list.  To be called once, at the start.

        A missing or damaged manifest is made anew from the files that verify.
        """
        self.disk.make_directory(self._directory)
        self.disk.sync_directory("")
        names = self.disk.list(self._directory)
        for name in names:
            if name.endswith(TEMPORARY_SUFFIX):
                self.disk.remove(f"{self._directory}/{name}")
        numbers = {name: number for name in names if (number := number_of(name)) is not None}
        manifest = self._read_manifest(names)
        if manifest is None:
            self._manifest = self._scanned(numbers)
            if numbers:
                self._write_manifest(self._manifest)
            return
        for entry in manifest.entries:
            if entry.file not in numbers:
                self._alarm("snapshot.missing", {"file": entry.file})
        there = tuple(entry for entry in manifest.entries if entry.file in numbers)
        next_number = max([manifest.next_number, *(each + 1 for each in numbers.values())])
        self._manifest = Manifest(next_number=next_number, entries=there)
        listed = {entry.file for entry in manifest.entries}
        for name in numbers:
            if name not in listed:
                self.disk.remove(f"{self._directory}/{name}")

    def _read_manifest(self, names: Sequence[str]) -> Manifest | None:
        path = f"{self._directory}/{MANIFEST}"
        if MANIFEST not in names:
            return None
        file = self.disk.open(path)
        try:
            return decode_manifest(file.pread(file.size(), 0), path)
        except SnapshotDamaged as problem:
            self._alarm("snapshot.manifest_damaged", {"reason": str(problem)})
            return None
        finally:
            file.close()

    def _scanned(self, numbers: Mapping[str, int]) -> Manifest:
        """What every file in the directory is worth.  Damaged ones are set aside."""
        entries = []
        for name, number in numbers.items():
            try:
                with self.open_file(ChainFile(path=f"{self._directory}/{name}")) as found:
                    for _ in found.sections():
                        pass
                    entries.append(entry_of(name, number, found.header, found.footer, found.size))
            except SnapshotDamaged as problem:
                self._alarm("snapshot.damaged", {"file": name, "reason": str(problem)})
                self._move_to_broken(name)
        if numbers:
            self._alarm("snapshot.manifest_rebuilt", {"entries": len(entries)})
        return Manifest(next_number=max(numbers.values(), default=0) + 1, entries=tuple(entries))

    # --- writing -------------------------------------------------------------------------

    def prepare(
        self, position: ImagePosition, base: BasePosition | None, *, folded: bool = False
    ) -> Draft:
        """Everything a writer needs, from the ports that only this process should touch.

        Raises `SnapshotFailed` without enough space, KeyError without the master key.
        """
        options = self.options
        if position.shard != options.shard:
            raise InvariantBroken(
                "a shard snapshots itself", position=position.shard, shard=options.shard
            )
        self._check_space(full=base is None)
        number = self._manifest.next_number
        self._manifest = msgspec.structs.replace(self._manifest, next_number=number + 1)
        header = Header(
            position=position,
            created=self._clock.now(),
            codec=options.codec,
            base=base,
            folded=folded,
            cluster_uid=options.cluster_uid,
        )
        data_key = None
        if options.master_key is not None:
            data_key = self._random.bytes(KEY_BYTES)
            header = header_with_key(
                header,
                name=options.master_key,
                master=self._secrets.get(options.master_key),
                data_key=data_key,
                nonce=self._random.bytes(NONCE_BYTES),
            )
        return Draft(
            header=header,
            data_key=data_key,
            number=number,
            name=file_name(position, number, full=base is None),
            directory=self._directory,
            compress=options.compress,
            block_bytes=options.block_bytes,
            sync_bytes=options.sync_bytes,
        )

    def _check_space(self, *, full: bool) -> None:
        like_this = [each.bytes for each in self.entries if each.full == full]
        needed = self.options.free_bytes_min + (like_this[-1] if like_this else 0)
        free = self.disk.free_bytes()
        if free < needed:
            raise SnapshotFailed(f"{free} bytes are free; a snapshot needs {needed}")

    def discard(self, draft: Draft) -> None:
        """Forget a draft that came to nothing."""
        self._remove(f"{draft.name}{TEMPORARY_SUFFIX}")

    def publish(self, draft: Draft, written: Written) -> SnapshotEntry:
        """List a verified file and drop what need not be kept any longer."""
        self.disk.rename(draft.temporary, draft.path)
        self.disk.sync_directory(self._directory)
        entry = entry_of(draft.name, draft.number, draft.header, written.footer, written.bytes)
        before = (*self.entries, entry)
        kept = retained(before, fulls=self.options.fulls_kept)
        self._write_manifest(msgspec.structs.replace(self._manifest, entries=kept))
        if draft.data_key is not None:
            self._data_keys[entry.file] = draft.data_key
        for each in before:
            if each not in kept:
                self._remove(each.file)
        return entry

    def _write_manifest(self, manifest: Manifest) -> None:
        path = f"{self._directory}/{MANIFEST}"
        data = encode_manifest(manifest)
        file = self.disk.open(path + TEMPORARY_SUFFIX, create=True, write=True)
        try:
            file.truncate(0)
            file.pwrite(data, 0)
            file.sync()
        finally:
            file.close()
        self.disk.rename(path + TEMPORARY_SUFFIX, path)
        self.disk.sync_directory(self._directory)
        self._manifest = manifest

    def _remove(self, name: str) -> None:
        """Remove a file that nothing refers to; what stays behind goes at the next start."""
        self._data_keys.pop(name, None)
        try:
            self.disk.remove(f"{self._directory}/{name}")
        except FileNotFoundError:
            return
        except OSError as problem:
            self._alarm("snapshot.not_removed", {"file": name, "reason": str(problem)})

    # --- reading -------------------------------------------------------------------------

    def chain_files(self, chain: Sequence[SnapshotEntry]) -> list[ChainFile]:
        """The files of a chain with the data keys that are known."""
        return [
            ChainFile(
                path=f"{self._directory}/{entry.file}",
                data_key=self._data_keys.get(entry.file),
                entry=entry,
            )
            for entry in chain
        ]

    @contextlib.contextmanager
    def open_file(self, file: ChainFile) -> Iterator[SnapshotFile]:
        """Open and check that it belongs here.  Raises `SnapshotDamaged`, `SnapshotRefused`."""
        with opened(self.disk, file, self.codecs, self.key_of) as found:
            self._check_owner(found)
            if file.entry is not None and found.data_key is not None:
                self._data_keys[file.entry.file] = found.data_key
            yield found

    def _check_owner(self, found: SnapshotFile) -> None:
        """Raise `SnapshotRefused` for the snapshot of another shard or cluster."""
        header, options = found.header, self.options
        if header.position.shard != options.shard:
            raise SnapshotRefused(
                f"{found.path} is of shard {header.position.shard}; this is {options.shard}"
            )
        if NO_UID not in (header.cluster_uid, options.cluster_uid) and (
            header.cluster_uid != options.cluster_uid
        ):
            raise SnapshotRefused(
                f"{found.path} is of cluster {header.cluster_uid.hex()};"
                f" this is {options.cluster_uid.hex()}"
            )

    def load(
        self,
        new_image: Callable[[], AnyImage],
        migrations: Migrations = NO_MIGRATIONS,
        *,
        sequence_max: int | None = None,
        check_state_hash: bool = False,
    ) -> tuple[AnyImage, ImagePosition | None, LoadReport]:
        """The newest usable state; an empty image and no position when there is none.

        Damaged files are reported, set aside, and the next older chain is tried.  Raises
        `SnapshotRefused` for intact files that this process cannot use.
        """
        unusable: dict[str, str] = {}
        damaged: list[str] = []
        while True:
            chain = plan_load(self.entries, unusable=unusable, sequence_max=sequence_max)
            image = new_image()
            if chain is None:
                self._set_aside(damaged)
                return image, None, LoadReport(damaged=unusable)
            loading = _Loading(image, migrations)
            try:
                for file in self.chain_files(chain):
                    with self.open_file(file) as found:
                        loading.take(found)
            except (SnapshotDamaged, OSError) as problem:
                name = file.entry.file if file.entry else file.path
                unusable[name] = str(problem)
                if isinstance(problem, SnapshotDamaged):
                    damaged.append(name)
                self._alarm("snapshot.damaged", {"file": name, "reason": str(problem)})
                continue
            checked = check_state_hash and loading.check()
            image.mark()
            self._set_aside(damaged)
            report = LoadReport(
                chain=chain,
                damaged=unusable,
                state_hash_checked=checked,
                schemas=loading.schemas,
                sections=loading.sections,
                chunk_bytes=loading.chunk_bytes,
            )
            return image, loading.position, report

    def _set_aside(self, damaged: Sequence[str]) -> None:
        """Stop listing damaged files, and keep their bytes for whoever wants to look."""
        if not damaged:
            return
        for name in damaged:
            self._move_to_broken(name)
        rest = tuple(each for each in self.entries if each.file not in damaged)
        self._write_manifest(msgspec.structs.replace(self._manifest, entries=rest))

    def _move_to_broken(self, name: str) -> None:
        self.disk.make_directory(BROKEN)
        self.disk.sync_directory("")
        try:
            self.disk.rename(f"{self._directory}/{name}", f"{BROKEN}/snapshot-{name}")
        except FileNotFoundError:
            return
        self.disk.sync_directory(BROKEN)
        self.disk.sync_directory(self._directory)


class _Loading:
    """One attempt to load a chain into an image."""

    def __init__(self, image: Image, migrations: Migrations) -> None:
        self._image = image
        self._migrations = migrations
        self._read = Schemas()
        self._last: SnapshotFile | None = None
        self.sections = 0
        self.chunk_bytes = 0

    @property
    def schemas(self) -> Mapping[str, AbstractSet[int]]:
        """Schemas of the sections taken, as they were stored, by name."""
        return self._read.seen

    @property
    def position(self) -> ImagePosition | None:
        """Position of the last file taken."""
        return None if self._last is None else self._last.header.position

    def take(self, file: SnapshotFile) -> None:
        """Load one file, migrated to the schemas of this process."""
        self._last = file
        for stored in self._read.watch(file.sections()):
            self.sections += 1
            self.chunk_bytes += len(stored.chunk)
            for section in self._migrations.forward(stored):
                self._load(file, section)

    def _load(self, file: SnapshotFile, section: Section) -> None:
        try:
            self._image.load(section)
        except Exception as problem:
            problem.add_note(
                f"while loading section {section.name!r}, schema {section.schema}, of slot"
                f" {section.slot} from {file.path}"
            )
            raise

    def check(self) -> bool:
        """Compare the state hash of the image; False when it cannot be compared."""
        expected = None if self._last is None else self._last.footer.state_hash
        if self._last is None or expected is None:
            return False
        dumped = Schemas()
        found = state_hash(dumped.watch(self._image.sections(full=True)))
        if self._read.differ(dumped):
            return False
        if found != expected:
            raise SnapshotRefused(
                f"{self._last.path} loads to another state than it was taken from"
            )
        return True
