"""From an object store to directories that a process can be started in: built, proved, renamed."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from ultraengine.backup.choosing import Target
from ultraengine.backup.errors import BackupDamaged, BackupRefused
from ultraengine.backup.manifest import Backup
from ultraengine.backup.restoring import Order, Restored, restore
from ultraengine.cli.directories import open_secrets, secrets_directory
from ultraengine.cli.exits import CommandFailed
from ultraengine.cli.offline import empty_image
from ultraengine.cli.replaying import Replayed, opened_shard, replayed_state
from ultraengine.log.segment import UID_BYTES
from ultraengine.log.space import write_file
from ultraengine.model.filled import BYTES_MAX, PATH, Filled, decode_filled
from ultraengine.model.ids import ShardId
from ultraengine.ports import Lock, ObjectStore
from ultraengine.router.shard_map import ShardMap
from ultraengine.snapshot import tools
from ultraengine.starting.loading import load_extensions
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.paths import sync_directory
from ultraengine_adapters.local.random import SystemRandom

BUILDING: Final = ".restoring-"
"""Before the name of a directory that is not whole yet."""


def shard_place(data: Path, shard: int) -> Path:
    """Where a shard's directory is."""
    return data / f"shard-{shard:04d}"


def noted(place: Path) -> Filled | None:
    """What a shard's directory was restored with; None where nobody has said so."""
    try:
        with (place / PATH).open("rb") as file:
            return decode_filled(file.read(BYTES_MAX))
    except OSError:
        return None


class Restoring:
    """A restore of one or more shards below one directory."""

    def __init__(
        self,
        store: ObjectStore,
        data: Path,
        secrets: Path | None,
        domains: Sequence[str] | None,
        say: Callable[[str], None],
        *,
        engine_uid: bytes | None = None,
    ) -> None:
        self._store = store
        self._data = data
        self._secrets = secrets_directory(secrets)
        self._domains = domains
        self._say = say
        self._random = SystemRandom()
        self._engine_uid = engine_uid or self._random.bytes(UID_BYTES)
        self._locks: dict[int, Lock] = {}

    def place(self, shard: int) -> Path:
        """Where the shard will be."""
        return shard_place(self._data, shard)

    def _building(self, shard: int) -> Path:
        return self._data / f"{BUILDING}{self.place(shard).name}"

    def build(self, shard: int, target: Target, *, base: Backup | None = None) -> Restored:
        """Write the shard's directory under a name that nobody looks at.

        Raises `CommandFailed` when there is one already, and what `restore` raises; then nothing
        is left.
        """
        place, building = self.place(shard), self._building(shard)
        if place.exists():
            raise CommandFailed(
                f"{place} is there already, and a restore overwrites nothing",
                advice="Name another --data, or move it away.",
            )
        self._data.mkdir(parents=True, exist_ok=True)
        # What a killed restore has left; another one that runs holds its lock.
        self._locks[shard] = LocalDisk(self._data).lock(f"{building.name}.lock")
        shutil.rmtree(building, ignore_errors=True)
        order = Order(
            shard=shard,
            target=target,
            engine_uid=self._engine_uid,
            cluster_uid=self._random.bytes(UID_BYTES),
            base=base,
        )
        codecs = load_extensions(os.environ.get("ULTRA_EXTENSIONS")).serializers
        try:
            return restore(
                order,
                self._store,
                LocalDisk(building),
                open_secrets(self._secrets),
                SystemClock(),
                self._random,
                codecs=codecs,
            )
        except BaseException:
            self.discard(shard)
            raise

    def prove(self, restored: Restored) -> Replayed:
        """Load the snapshots, replay the log, and compare; what was reached.

        Raises `BackupDamaged`; then nothing is left.
        """
        shard = restored.shard
        try:
            opened = opened_shard(
                self._building(shard), domains=self._domains, secrets=self._secrets
            )
            with_domains = msgspec.structs.replace(
                opened.snapshots, new_image=lambda: empty_image(opened.registry.domains, shard)
            )
            images = tools.verify(with_domains)
            for verdict in images.verdicts:
                if verdict.problem is not None:
                    raise BackupDamaged(verdict.entry.file, verdict.problem)
            reached = replayed_state(opened)
            self._compare(restored, reached)
        except BaseException:
            self.discard(shard)
            raise
        return reached

    def require_slots(self, shard: int, reached: Replayed, shard_map: ShardMap) -> None:
        """Raise `CommandFailed` unless a shard that was proved takes commands of the slots that a
        map gives it; then nothing is left.

        What its disk and its log say counts for more than any map: the engine would have keys that
        no gateway finds, and none of slots that have moved away.
        """
        given = shard_map.slots_of(ShardId(shard))
        if _slots(reached.slots) != _slots(given):
            self.discard(shard)
            raise CommandFailed(
                f"the backup of shard {shard} owns slots {_text(reached.slots)}, and the map gives "
                f"it {_text(given)}",
                advice="Restore into an engine of as many shards as were backed up, with the slots "
                "that it had; more shards come afterwards.",
            )

    def _compare(self, restored: Restored, reached: Replayed) -> None:
        if reached.offset != restored.recorded_end:
            raise BackupDamaged(
                restored.backup,
                f"replay reaches offset {reached.offset} instead of {restored.recorded_end}",
            )
        same_place = restored.snapshot_offset == reached.offset
        if same_place and restored.state_hash not in {None, reached.state_hash}:
            raise BackupDamaged(
                restored.backup,
                f"replay comes to state {reached.state_hash}, and the manifest says "
                f"{restored.state_hash}",
            )

    def note(self, restored: Restored, reached: Replayed) -> None:
        """Put what was restored beside the log, before the directory gets its name.

        Raises OSError; then nothing is left.
        """
        at = datetime.fromtimestamp(restored.time // 1_000_000, UTC)
        filled = Filled(
            backup=restored.backup,
            offset=str(restored.offset_end),
            state_hash=reached.state_hash,
            stamped_at=at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        try:
            disk = LocalDisk(self._building(restored.shard))
            write_file(disk, PATH, f"{PATH}.tmp", filled.encode())
        except BaseException:
            self.discard(restored.shard)
            raise

    def publish(self, shard: int) -> None:
        """Give the directory its name."""
        place = self.place(shard)
        if place.exists():
            raise BackupRefused(f"{place} was made meanwhile")
        self._building(shard).rename(place)
        sync_directory(self._data)
        self._release(shard)

    def discard(self, shard: int) -> None:
        """Leave nothing."""
        shutil.rmtree(self._building(shard), ignore_errors=True)
        self._release(shard)

    def _release(self, shard: int) -> None:
        lock = self._locks.pop(shard, None)
        if lock is not None:
            (self._data / f"{self._building(shard).name}.lock").unlink(missing_ok=True)
            lock.release()


def _slots(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {slot for start, end in ranges for slot in range(start, end)}


def _text(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start}-{end - 1}" for start, end in ranges) or "none"
