"""The answer to one command (`docs/api.md`, Reply) and its proof of durability."""

from typing import Any, Literal

import msgspec

OutcomeName = Literal["accepted", "rejected", "refused", "unknown"]
"""``unknown`` (OUTCOME_UNKNOWN): no answer in time, so it may be logged.  It is no refusal: a
client that took it for one would book twice with a new id."""
DurabilityName = Literal["sync", "group", "async"]


class Durable(msgspec.Struct, frozen=True, gc=False):
    """What had been made durable when the reply left.

    ``replicas`` counts the copies that had the command on disk, this one included;
    under ``async`` a reply may leave with ``local`` false and 0 replicas.
    """

    policy: DurabilityName
    local: bool
    replicas: int


class ReplyError(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The ``error`` member of a reply: stable code, what was wrong, where, what to do."""

    code: str
    detail: str
    pointer: str = ""
    advice: str = ""
    retry_after_s: float | None = None
    current_version: int | None = None
    location: str | None = None
    shard_map_version: int | None = None
    """With WRONG_SHARD: the version of the map that the shard goes by."""
    leader_url: str | None = None
    """With NOT_LEADER: where the leader is, when the copy that was asked knows it."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One command's answer.  Refused commands were never logged: no offset, no version.

    Invisible to the cycle collector: a result was encoded, so it holds no cycle.
    """

    id: str
    outcome: OutcomeName
    result: Any = None
    error: ReplyError | None = None
    shard: int | None = None
    epoch: int | None = None
    offset: int | None = None
    version: int | None = None
    time: str | None = None
    """Stamped time of the command's frame, RFC 3339 UTC with microseconds."""
    duplicate: bool = False
    durable: Durable | None = None
