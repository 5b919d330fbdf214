"""Which sealed segments may go: below the snapshot and every consumer, within a byte cap.

    retention point = min(snapshot, slowest consumer); beyond `retention_bytes_max` the slowest
    consumers are dropped, with an alarm, until the log fits

A dead consumer must not fill the disk, and no consumer ever moves the log past the snapshot:
what recovery needs is never removed (requirement 001 §2.1).  Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant

SNAPSHOT: Final = "snapshot"
"""In `RetentionReport.limited_by`: the snapshot is what holds the log back."""


class SegmentSpan(msgspec.Struct, frozen=True):
    """A sealed segment and what it covers; ends exclude."""

    path: str
    first_sequence: int
    end_sequence: int
    first_offset: int
    end_offset: int
    file_bytes: int
    sealed_at: Instant


class RetentionPlan(msgspec.Struct, frozen=True):
    """What to remove, and why not more."""

    remove: tuple[SegmentSpan, ...]
    """From the lowest on, without a gap."""
    dropped: Mapping[str, int]
    """Consumers that are not waited for any more, with the first offset they still needed."""
    limited_by: str
    """Name of the consumer, or `SNAPSHOT`, that holds the next segment; empty when none is left."""
    kept_bytes: int


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``Log.retain`` has done."""

    removed: tuple[str, ...] = ()
    """Paths of the segments that are gone."""
    archived: tuple[str, ...] = ()
    """Names of the objects that were stored."""
    pruned: tuple[str, ...] = ()
    """Names of archived objects that were removed: merged, or older than the policy keeps."""
    dropped: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Consumers that lost what they had not read, with the first offset they still needed."""
    limited_by: str = ""
    first_sequence: int = 0
    first_offset: int = 0
    """Where the log starts now."""
    log_bytes: int = 0
    alarms: tuple[str, ...] = ()
    """Full sentences for people; empty when all is well."""


def plan(
    sealed: Sequence[SegmentSpan],
    *,
    current_bytes: int,
    snapshot_sequence: int,
    snapshot_offset: int,
    consumers: Mapping[str, int],
    bytes_max: int,
) -> RetentionPlan:
    """Decide about the sealed segments, ascending; `current_bytes` is the one being written.

    `consumers` maps a name to the first offset that it still needs.
    """
    allowed = 0
    while (
        allowed < len(sealed)
        and sealed[allowed].end_sequence <= snapshot_sequence
        and sealed[allowed].end_offset <= snapshot_offset
    ):
        allowed += 1
    # The order decides who is dropped first: the slowest, and by name among equals.
    waiting = sorted(consumers.items(), key=lambda item: (item[1], item[0]))
    dropped = {}
    while True:
        count = allowed
        if waiting:
            slowest = waiting[0][1]
            count = sum(1 for span in sealed[:allowed] if span.end_offset <= slowest)
        kept = current_bytes + sum(span.file_bytes for span in sealed[count:])
        if kept <= bytes_max or not waiting or count == allowed:
            break
        name, needed = waiting.pop(0)
        dropped[name] = needed
    limited_by = ""
    if count < len(sealed):
        limited_by = SNAPSHOT if count == allowed else waiting[0][0]
    return RetentionPlan(tuple(sealed[:count]), dropped, limited_by, kept)


def alarms_of(planned: RetentionPlan, bytes_max: int) -> tuple[str, ...]:
    """What a person should hear about a plan."""
    alarms = [
        f"the consumer {name!r} still needed offset {needed} and was dropped: the log would be "
        f"larger than retention_bytes_max ({bytes_max} bytes)"
        for name, needed in planned.dropped.items()
    ]
    if planned.kept_bytes > bytes_max and planned.limited_by == SNAPSHOT:
        alarms.append(
            f"the log keeps {planned.kept_bytes} bytes, more than retention_bytes_max "
            f"({bytes_max}), because the newest verified snapshot is too old"
        )
    return tuple(alarms)


class NoCompaction:
    """``none``: segments below the retention point are removed and nothing is archived."""

    @property
    def name(self) -> str:
        """``none``."""
        return "none"

    def archive(self, *, sealed_at: Instant, now: Instant) -> bool:  # noqa: ARG002  (Protocol)
        """Never."""
        return False


class TimeRetention:
    """``time``: segments are archived as they are, and leave the archive at a certain age."""

    def __init__(self, keep_s: float | None = None) -> None:
        """`keep_s` counts from the moment a segment was sealed; None = for ever."""
        if keep_s is not None and keep_s <= 0:
            raise InvariantBroken("segments are kept for more than 0 s", keep_s=keep_s)
        self._keep_us = None if keep_s is None else round(keep_s * 1_000_000)

    @property
    def name(self) -> str:
        """``time``."""
        return "time"

    def archive(self, *, sealed_at: Instant, now: Instant) -> bool:
        """Whether it is young enough."""
        return self._keep_us is None or now - sealed_at < self._keep_us


class KeyCompaction:
    """``key``: of what is removed, the newest accepted command per (tenant, key) is archived."""

    @property
    def name(self) -> str:
        """``key``."""
        return "key"

    def archive(self, *, sealed_at: Instant, now: Instant) -> bool:  # noqa: ARG002  (Protocol)
        """Always."""
        return True
