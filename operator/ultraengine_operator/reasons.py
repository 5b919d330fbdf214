"""Every reason of every condition, once; each has a page under `docs/kubernetes/runbooks/`.

A closed list: conditions are built from members of it alone, and a test compares the pages.
"""

import enum
from typing import Final

RUNBOOKS: Final = "docs/kubernetes/runbooks"


class Reason(enum.StrEnum):
    """Why a condition has its status."""

    AS_WISHED = "AsWished"
    SERVING = "Serving"
    NOT_OBSERVED = "NotObserved"
    CREATING = "Creating"
    SHARDS_NOT_READY = "ShardsNotReady"
    RESTORING = "Restoring"
    RESTORE_FAILED = "RestoreFailed"
    COPIES_OUT_OF_SYNC = "CopiesOutOfSync"
    GATEWAY_NOT_READY = "GatewayNotReady"
    QUERY_NOT_READY = "QueryNotReady"
    PROJECTION_NOT_READY = "ProjectionNotReady"
    ROLLING_RESTART = "RollingRestart"
    UPGRADING = "Upgrading"
    CANDIDATE_DIFFERS = "CandidateDiffers"
    CANDIDATE_FAILED = "CandidateFailed"
    WAITING_FOR_BUDGET = "WaitingForBudget"
    DELETING = "Deleting"
    PAUSED_BY_SPEC = "PausedBySpec"
    PLAN_ONLY = "PlanOnly"
    SPEC_INVALID = "SpecInvalid"
    IMAGE_MISSING = "ImageMissing"
    COPIES_CHANGING = "CopiesChanging"
    RECORD_MISSING = "RecordMissing"
    AUTHORITY_UNREADABLE = "AuthorityUnreadable"
    RENDER_VERSION_UNKNOWN = "RenderVersionUnknown"
    SLOTS_MOVING = "SlotsMoving"
    REBALANCING_WAITS = "RebalancingWaits"
    REBALANCING_STUCK = "RebalancingStuck"
    SLOT_MOVE_FAILED = "SlotMoveFailed"
    PROJECTIONS_NEED_SHARDS = "ProjectionsNeedShards"
    STORAGE_SHRINK_REFUSED = "StorageShrinkRefused"
    SHARD_MAP_MISSING = "ShardMapMissing"
    SHARD_MAP_UNREADABLE = "ShardMapUnreadable"
    VOLUMES_OF_ANOTHER_ENGINE = "VolumesOfAnotherEngine"
    ROLLOUT_HALTED = "RolloutHalted"
    DELETION_NOT_CONFIRMED = "DeletionNotConfirmed"
    BACKED_UP = "BackedUp"
    BACKING_UP = "BackingUp"
    BACKUP_NOT_CONFIGURED = "BackupNotConfigured"
    BACKUP_FAILED = "BackupFailed"
    SHARD_UNREACHABLE = "ShardUnreachable"
    SHARD_NOT_FOUND = "ShardNotFound"
    ENGINE_NOT_FOUND = "EngineNotFound"
    APPLY_REFUSED = "ApplyRefused"

    @property
    def runbook(self) -> str:
        """The page that says what to do."""
        return f"{RUNBOOKS}/{self.value}.md"


class Problem(Exception):
    """A wish that cannot be met as it stands; it becomes the condition Stalled.

    `holds` says whether everything else waits too, or only what the problem is about.
    """

    def __init__(self, reason: Reason, message: str, *, holds: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.holds = holds
