"""What can be wrong with a snapshot, by who has to act.

Damage is survived by falling back to an older snapshot; a refusal is not: the bytes are
good, and somebody has to bring the right release, codec or key.
"""


class SnapshotError(Exception):
    """Base of everything that is raised about snapshots."""


class SnapshotDamaged(SnapshotError):
    """The bytes of a snapshot or manifest are not what was written."""

    def __init__(self, path: str, position: int, what: str) -> None:
        self.path = path
        self.position = position
        """Byte position of the broken structure."""
        self.what = what
        super().__init__(f"{path} is damaged at byte {position}: {what}")


class SnapshotRefused(SnapshotError):
    """The bytes are intact, but this process cannot or may not use them.

    Newer format, unknown codec, missing or wrong key, another shard, newer schema.
    """


class SnapshotFailed(SnapshotError):
    """A snapshot could not be taken, verified or recorded.  Nothing was listed."""


class SnapshotBusy(SnapshotError):
    """Another snapshot or compaction of this shard is running."""
