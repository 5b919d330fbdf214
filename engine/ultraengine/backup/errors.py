"""What can be wrong with a backup."""


class BackupError(Exception):
    """Base of everything that is raised about backups.  Nothing was begun, or nothing is left."""


class BackupDamaged(BackupError):
    """An object is missing, or is not what was stored."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"{name}: {reason}")


class BackupRefused(BackupError):
    """The store, or what is asked of it, is another engine's or lies outside of what it holds."""
