"""The status of an engine and of its shards: a report, written only when it has changed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ultraengine.model.ids import ShardId
from ultraengine_operator import names
from ultraengine_operator.actions import describe
from ultraengine_operator.api.types import Metadata, UltraEngine
from ultraengine_operator.conditions import Finding, conditions, findings, stalled
from ultraengine_operator.copies import lacking, serving
from ultraengine_operator.observed import Observed, SeenShard
from ultraengine_operator.plan import Plan
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rollout import unready

Status = dict[str, Any]
PLAN_LINES_MAX = 64
_KEPT = ("epoch", "offset", "lastFailover", "restored")
"""What of a shard stays as last heard."""


def _conditions(
    found: Sequence[Finding], before: Mapping[str, Any], generation: int, now: str
) -> list[Status]:
    made = conditions(found, before=before.get("conditions") or (), generation=generation, now=now)
    return [msgspec.to_builtins(one) for one in made]


def engine_status(
    engine: UltraEngine, plan: Plan, observed: Observed, *, before: Mapping[str, Any], now: str
) -> Status:
    """`status` of an engine. `before` gives conditions their times and nothing else."""
    mode = engine.spec.reconciliation
    found = findings(plan, observed, mode)
    seen = [one.shard for one in observed.sets]
    status: Status = {
        "observedGeneration": engine.metadata.generation,
        "conditions": _conditions(found, before, engine.metadata.generation, now),
        "shards": len(seen) - len(unready(observed, tuple(seen))),
        "shardsDesired": engine.spec.shards,
        "replicas": len(seen),
        "selector": f"{names.ENGINE}={engine.metadata.name}",
        "phase": _phase(found),
    }
    if plan.image:
        status["version"] = plan.image
        status["renderVersion"] = str(plan.render_version)
        status["gatewayAddress"] = f"{engine.metadata.name}-gateway.{engine.metadata.namespace}.svc"
    if plan.rebalancing.progress is not None:
        status["rebalance"] = plan.rebalancing.progress
    if plan.upgrade.progress is not None:
        status["upgrade"] = plan.upgrade.progress
    if mode == "Plan":
        lines = [*map(describe, plan.actions), *plan.rebalancing.lines]
        if len(lines) > PLAN_LINES_MAX:
            rest = len(lines) - PLAN_LINES_MAX + 1
            lines = [*lines[: PLAN_LINES_MAX - 1], f"and {rest} more"]
        status["plan"] = lines
    return status


def unreadable_status(
    metadata: Metadata, problem: Problem, *, before: Mapping[str, Any], now: str
) -> Status:
    """`status` of an engine whose spec is no spec; what else was reported stays."""
    found = stalled(problem)
    return {
        **{key: before[key] for key in before if key != "plan"},
        "observedGeneration": metadata.generation,
        "conditions": _conditions(found, before, metadata.generation, now),
        "phase": _phase(found),
    }


def _phase(found: Iterable[Finding]) -> str:
    """One word for people; nothing reads it."""
    by_type = {one.type: one for one in found}
    for kind in ("Stalled", "Paused", "Reconciling"):
        if kind in by_type:
            return kind
    return "Ready" if by_type["Ready"].status == "True" else str(by_type["Ready"].reason)


def shard_status(
    shard: int,
    plan: Plan,
    observed: Observed,
    answered: SeenShard | None,
    *,
    generation: int,
    before: Mapping[str, Any],
    now: str,
) -> Status:
    """`status` of a Shard. What only the shard knows stays as last heard while it is silent."""
    away = unready(observed, (shard,))
    found = [
        Finding("Ready", "False", Reason.SHARDS_NOT_READY, "no pod of the shard serves")
        if away
        else Finding("Ready", "True", Reason.SERVING, "the shard serves")
    ]
    if not away and lacking(observed, (shard,)):
        few = "fewer copies are in sync than it has"
        found.append(Finding("Degraded", "True", Reason.COPIES_OUT_OF_SYNC, few))
    slots = plan.shard_map.slots_of(ShardId(shard)) if plan.shard_map is not None else ()
    status: Status = {
        "observedGeneration": generation,
        "conditions": _conditions(found, before, generation, now),
        "slots": sum(end - start for start, end in slots),
    }
    leader = serving(observed, shard)
    claims = [claim.name for claim in observed.claims if claim.shard == shard]
    if claims:
        own = "" if leader is None else f"data-{leader.name}"
        status["volume"] = own if own in claims else claims[0]
    status["replicas"] = len(observed.pods_of(shard))
    if answered is not None:
        status.update(epoch=answered.epoch, offset=answered.offset)
    kept = {key: before[key] for key in _KEPT if key in before}
    status = {**kept, **status}
    if answered is not None and answered.last_failover is not None:
        status["lastFailover"] = msgspec.to_builtins(answered.last_failover)
    for pod in observed.pods_of(shard):
        if pod.filled is not None:
            status["restored"] = msgspec.to_builtins(pod.filled)
    if leader is not None:
        status["leader"] = leader.name
    record = observed.record_of(shard)
    if record is not None and record.epoch:
        # The record outranks what a pod has said of it.
        status["epoch"] = str(record.epoch)
        status["inSync"] = [f"{record.name}-{number}" for number in record.in_sync]
    return status
