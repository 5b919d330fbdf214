"""A backup that somebody wants of a shard, and what has come of it.

    Ask     one shard, asked for by a Snapshot object or by an engine that is let go
    Image   what the shard answers when all of its backup was read back
    Said    the newest word on an ask: the image, or why there is none yet

A shard that is asked twice backs up twice, and sends what is in the store already no second time:
whoever does not know whether it has asked asks again.
"""

from datetime import UTC, datetime

import msgspec

from ultraengine_operator.reasons import Reason


class Ask(msgspec.Struct, frozen=True, order=True):
    """One shard is to back itself up."""

    request: str
    """The uid of the object that wants it."""
    shard: int
    last: bool = False
    """Whether the shard is to take no command after it."""


class Image(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A backup that was read back, as `status.shards` of a Snapshot has it."""

    shard: int
    offset: str = ""
    offset_end: str = ""
    state_hash: str = ""
    location: str = ""
    manifest: str = ""
    verified_at: str = ""


class Report(msgspec.Struct, frozen=True):
    """The part of a shard's answer that is told on (`ultraengine.backup.driver.BackupReport`)."""

    shard: int
    name: str
    location: str
    snapshot_offset: int
    state_hash: str | None
    offset_end: int
    verified_at: int


class Said(msgspec.Struct, frozen=True):
    """What has come of an ask so far."""

    ask: Ask
    image: Image | None = None
    reason: Reason | None = None
    """Why there is no image after an attempt."""
    message: str = ""
    attempts: int = 0
    is_over: bool = False
    """Whether no further attempt is made."""


class NotTaken(Exception):
    """There is no backup, or nobody knows of it; another attempt may succeed."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def image_of(shard: int, report: Report) -> Image:
    """The image that a shard reports.  Raises `NotTaken` for another shard's."""
    if report.shard != shard:
        told = f"shard {report.shard} answers at the address of shard {shard}"
        raise NotTaken(Reason.BACKUP_FAILED, told)
    at = datetime.fromtimestamp(report.verified_at // 1_000_000, UTC)
    return Image(
        shard=shard,
        offset=str(report.snapshot_offset),
        offset_end=str(report.offset_end),
        state_hash=report.state_hash or "",
        location=report.location,
        manifest=report.name,
        verified_at=at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
