"""When to take a snapshot, and which kind (requirement 001 §2.1: time, count, adaptive).

Pure policies: the shard measures, passes `Progress`, and gets the reason to take one now, or
None.  A user's own policy is one more class with ``due``.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from ultraengine.snapshot.manifest import SnapshotEntry

SnapshotKind = Literal["full", "increment"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when the question is asked.  Counts since the last verified snapshot."""

    commands: int
    """Commands executed since: the tail that a restart would replay."""
    elapsed_s: float
    """Seconds since it was cut, or since the start when there is none."""
    replay_per_s: float | None = None
    """Measured commands per second of replay; None when nothing was replayed yet."""
    arrivals_per_s: float = 0.0
    """Commands per second now."""
    last_duration_s: float = 0.0
    """How long the last one took from the cut to its record; 0 when there is none."""
    failures: int = 0
    """Failed attempts since the last success."""
    since_failure_s: float = 0.0
    """Seconds since the last failed attempt."""
    requested: bool = False
    """Somebody asked for one."""
    running: bool = False
    """One is being taken."""


class SnapshotPolicy(Protocol):
    """Decides when; a function of its argument."""

    def due(self, progress: Progress) -> str | None:
        """Why a snapshot is due now, for the record; None when it is not."""


class EveryCommands(msgspec.Struct, frozen=True):
    """By count."""

    commands: int

    def due(self, progress: Progress) -> str | None:
        """After that many commands."""
        if progress.commands >= self.commands:
            return f"{progress.commands} commands since the last one"
        return None


class EveryInterval(msgspec.Struct, frozen=True):
    """By time, when there is anything new."""

    interval_s: float
    commands_min: int = 1

    def due(self, progress: Progress) -> str | None:
        """After that many seconds, if at least ``commands_min`` commands came."""
        if progress.elapsed_s >= self.interval_s and progress.commands >= self.commands_min:
            return f"{progress.elapsed_s:.0f} s since the last one"
        return None


class ReplayBound(msgspec.Struct, frozen=True, kw_only=True):
    """Adaptive: a restart replays for at most ``replay_s_max`` seconds.

    The tail goes on growing while the snapshot is taken, so that time is counted in.  The
    work is bounded from the other side: of all time at most ``busy_share_max`` is spent on
    snapshots, which wins when both cannot be had.
    """

    replay_s_max: float = 10.0
    assumed_per_s: float = 100_000.0
    """Replay rate until one was measured."""
    busy_share_max: float = 0.5

    def due(self, progress: Progress) -> str | None:
        """When the tail at the end of a snapshot started now would replay for too long."""
        rate = progress.replay_per_s or self.assumed_per_s
        growth = progress.arrivals_per_s * progress.last_duration_s
        replay_s = (progress.commands + growth) / rate
        rested = progress.elapsed_s * self.busy_share_max >= progress.last_duration_s
        if progress.commands > 0 and replay_s >= self.replay_s_max and rested:
            return f"replay would take {replay_s:.1f} s"
        return None


class OnDemand(msgspec.Struct, frozen=True):
    """When somebody asked."""

    def due(self, progress: Progress) -> str | None:
        """At once."""
        return "requested" if progress.requested else None


class AnyOf(msgspec.Struct, frozen=True):
    """The first of several policies that says so; one at a time, and patient after failures."""

    policies: tuple[SnapshotPolicy, ...]
    retry_s: float = 10.0
    """Pause after a failure, doubled by each further one."""
    retry_s_max: float = 600.0

    def due(self, progress: Progress) -> str | None:
        """Nothing while one runs or the pause lasts; a request does not wait for the pause."""
        if progress.running:
            return None
        if progress.failures and not progress.requested:
            pause_s = min(self.retry_s * 2.0 ** min(progress.failures - 1, 30), self.retry_s_max)
            if progress.since_failure_s < pause_s:
                return None
        for policy in self.policies:
            reason = policy.due(progress)
            if reason is not None:
                return reason
        return None


def default_policy() -> AnyOf:
    """A million commands, ten seconds of replay, or an hour, whichever comes first."""
    return AnyOf((OnDemand(), EveryCommands(1_000_000), ReplayBound(), EveryInterval(3600.0)))


def choose_kind(
    chain: Sequence[SnapshotEntry], *, increments_max: int, bytes_share_max: float
) -> SnapshotKind:
    """Full or increment, for the next one on top of `chain` (full image first; empty = none).

    Full when the chain has its bounded length already, or when its increments together have
    outgrown ``bytes_share_max`` times the full image: then loading them costs more than they
    saved.
    """
    increments = chain[1:]
    if not chain or len(increments) >= increments_max:
        return "full"
    if sum(each.bytes for each in increments) > bytes_share_max * chain[0].bytes:
        return "full"
    return "increment"
