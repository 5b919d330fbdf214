"""Snapshot objects: what is to be asked of which shard, and what is reported.

Status of other kinds is a report and never an input. That of a Snapshot is both: the object is one
request, and its status is where the answer is kept, so that who has been answered is never
answered again, by another operator neither. An image in it is not asked for again; a Snapshot
that is Ready, or was given up, is over. Everything else is looked at anew each time: an engine or
a place for backups that is missing may come.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ultraengine_operator.api.types import UltraEngine
from ultraengine_operator.backups import Ask, Image, Said
from ultraengine_operator.conditions import Finding, conditions
from ultraengine_operator.plan import Plan
from ultraengine_operator.reasons import Problem, Reason

GIVEN_UP: Final = (Reason.BACKUP_FAILED, Reason.SHARD_UNREACHABLE)
"""Reasons of Stalled that stay."""


class SeenSnapshot(msgspec.Struct, frozen=True):
    """A request, and what was answered so far."""

    name: str
    uid: str
    generation: int
    shard: int | None
    """None is every shard."""
    images: tuple[Image, ...]
    is_over: bool

    def wanted(self, shards: Sequence[int]) -> tuple[int, ...]:
        """The shards that it asks for, of those that the engine has."""
        return tuple(one for one in shards if self.shard in (None, one))


def read_snapshot(content: Mapping[str, Any]) -> SeenSnapshot:
    """The request that an object is."""
    metadata, status = content["metadata"], content.get("status") or {}
    images = msgspec.convert(status.get("shards") or [], tuple[Image, ...])
    stands = {one["type"]: one for one in status.get("conditions") or ()}
    stalled = stands.get("Stalled", {})
    return SeenSnapshot(
        metadata["name"],
        metadata["uid"],
        metadata.get("generation", 1),
        content["spec"].get("shard"),
        # An image without a time was not read back.
        tuple(sorted((one for one in images if one.verified_at), key=lambda one: one.shard)),
        stands.get("Ready", {}).get("status") == "True" or stalled.get("reason") in GIVEN_UP,
    )


def hindrance(name: str, engine: UltraEngine | None, plan: Plan) -> Problem | None:
    """Why no shard of an engine can be asked now; None when they can."""
    if engine is None:
        return Problem(Reason.ENGINE_NOT_FOUND, f"there is no UltraEngine {name} here")
    if plan.deleting:
        return Problem(Reason.ENGINE_NOT_FOUND, f"UltraEngine {name} is being deleted")
    if not plan.shards:
        return plan.problems[0]
    if engine.spec.backup is None:
        return Problem(Reason.BACKUP_NOT_CONFIGURED, f"UltraEngine {name} has no spec.backup")
    return None


def asks(
    found: Iterable[SeenSnapshot], shards: Sequence[int], away: Collection[int]
) -> tuple[Ask, ...]:
    """What is to be asked of shards that serve, in an order of its own."""
    return tuple(
        sorted(
            Ask(one.uid, shard)
            for one in found
            if not one.is_over
            for shard in one.wanted(shards)
            if shard not in away and all(image.shard != shard for image in one.images)
        )
    )


def snapshot_status(
    seen: SeenSnapshot,
    problem: Problem | None,
    shards: Sequence[int],
    away: Collection[int],
    said: Mapping[Ask, Said],
    *,
    before: Mapping[str, Any],
    now: str,
) -> dict[str, Any]:
    """`status` of a Snapshot that is not over."""
    images = {image.shard: image for image in seen.images}
    for shard in seen.wanted(shards):
        told = said.get(Ask(seen.uid, shard))
        if told is not None and told.image is not None:
            images[shard] = told.image
    found = _findings(seen, problem, shards, away, said, images)
    made = conditions(
        found, before=before.get("conditions") or (), generation=seen.generation, now=now
    )
    status: dict[str, Any] = {
        "observedGeneration": seen.generation,
        "conditions": [msgspec.to_builtins(one) for one in made],
    }
    if images:
        status["shards"] = [msgspec.to_builtins(images[shard]) for shard in sorted(images)]
    return status


def _findings(
    seen: SeenSnapshot,
    problem: Problem | None,
    shards: Sequence[int],
    away: Collection[int],
    said: Mapping[Ask, Said],
    images: Mapping[int, Image],
) -> tuple[Finding, ...]:
    if problem is not None:
        return _stalled(problem.reason, problem.message)
    wanted = seen.wanted(shards)
    if not wanted:
        return _stalled(Reason.SHARD_NOT_FOUND, f"the engine has no shard {seen.shard}")
    missing = [shard for shard in wanted if shard not in images]
    if not missing:
        told = f"shards backed up and read back: {_list(wanted)}"
        return (Finding("Ready", "True", Reason.BACKED_UP, told),)
    words = [said[ask] for shard in missing if (ask := Ask(seen.uid, shard)) in said]
    for word in sorted(words, key=lambda one: (not one.is_over, one.ask)):
        if word.reason is not None:
            told = f"shard {word.ask.shard}, {word.attempts} attempts: {word.message}"
            if word.is_over:
                return _stalled(word.reason, told)
            return _reconciling(word.reason, told)
    silent = [shard for shard in missing if shard in away]
    if silent:
        told = f"shards that do not serve yet: {_list(silent)}"
        return _reconciling(Reason.SHARD_UNREACHABLE, told)
    return _reconciling(Reason.BACKING_UP, f"shards that back up: {_list(missing)}")


def _list(shards: Iterable[int]) -> str:
    return ", ".join(map(str, shards))


def _stalled(reason: Reason, message: str) -> tuple[Finding, ...]:
    return (
        Finding("Ready", "False", reason, message),
        Finding("Stalled", "True", reason, message),
    )


def _reconciling(reason: Reason, message: str) -> tuple[Finding, ...]:
    return (
        Finding("Ready", "False", reason, message),
        Finding("Reconciling", "True", reason, message),
    )
