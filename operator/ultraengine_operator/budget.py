"""How many engines may be disturbed at once, over the whole fleet, and when nobody may.

A restart needs a grant. An engine that is being restarted keeps its own; while one has failed,
no other begins. After its start the operator grants nothing before it has looked at every
engine: it cannot know who was being restarted.
"""

import enum
from collections.abc import Mapping

import msgspec


class Standing(enum.Enum):
    """How an engine stands in the fleet."""

    QUIET = "quiet"
    CHANGING = "changing"
    FAILED = "failed"


class Fleet(msgspec.Struct, frozen=True):
    """What is known of all engines."""

    standings: Mapping[str, Standing]
    unseen: int = 0
    """Engines that nobody has looked at since the start."""
    changing_max: int = 1


def refusal(fleet: Fleet, key: str) -> str | None:
    """Why the engine may not be disturbed now; None when it may."""
    mine = fleet.standings.get(key, Standing.QUIET)
    if mine is not Standing.QUIET:
        return None
    if fleet.unseen:
        return f"{fleet.unseen} engines were not looked at since the operator started"
    failed = sorted(name for name, one in fleet.standings.items() if one is Standing.FAILED)
    if failed:
        return f"the restart of {failed[0]} has failed, and no other begins before it is mended"
    changing = sorted(name for name, one in fleet.standings.items() if one is Standing.CHANGING)
    if len(changing) >= fleet.changing_max:
        return f"{len(changing)} of {fleet.changing_max} engines are being restarted: {changing[0]}"
    return None
