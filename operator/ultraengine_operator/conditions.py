"""Conditions of an engine: Ready, Available, and those that are there only while True.

    Ready        all is as the spec of `observedGeneration` wishes
    Available    commands are taken: every shard with slots and a gateway serve
    Degraded     commands are taken, and a shard has fewer copies in sync than it has
    Reconciling, Stalled, Paused, Degraded, Rebalancing   present only when True (kstatus)

`lastTransitionTime` changes with the status alone, never with reason or message.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ultraengine_operator.actions import Apply, Create, MakeKey, Scale
from ultraengine_operator.api.types import Reconciliation
from ultraengine_operator.copies import changing, expected, lacking, whole
from ultraengine_operator.observed import Observed
from ultraengine_operator.plan import Plan
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rebalance import Rebalancing
from ultraengine_operator.rollout import unready, unsettled

MESSAGE_MAX: Final = 1_024


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of `status.conditions`."""

    type: str
    status: str
    reason: Reason
    message: str
    observed_generation: int
    last_transition_time: str = ""


class Finding(msgspec.Struct, frozen=True):
    """A condition before it has a generation and a time."""

    type: str
    status: str
    reason: Reason
    message: str = ""


def findings(plan: Plan, observed: Observed, mode: Reconciliation) -> tuple[Finding, ...]:
    """What is to be said about an engine."""
    ready = _ready(plan, observed, mode)
    found = [ready, _available(observed)]
    degraded = _degraded(plan, observed)
    if degraded is not None and found[1].status == "True":
        found.append(degraded)
    if plan.problems:
        worst = next((one for one in plan.problems if one.holds), plan.problems[0])
        others = "; ".join(one.message for one in plan.problems if one is not worst)
        message = f"{worst.message}; {others}" if others else worst.message
        found.append(Finding("Stalled", "True", worst.reason, message))
    elif mode == "Active" and ready.status != "True":
        found.append(Finding("Reconciling", "True", ready.reason, ready.message))
    moving = plan.rebalancing
    if moving.is_moving:
        found.append(Finding("Rebalancing", "True", moving.reason, moving.message))
    if mode == "Paused":
        found.append(Finding("Paused", "True", Reason.PAUSED_BY_SPEC, "nothing is written"))
    return tuple(found)


def _gateway_behind(observed: Observed) -> str | None:
    seen = observed.gateway
    if seen is None:
        return "the gateway does not exist yet"
    return None if seen.behind is None else f"gateway: {seen.behind}"


def _reads_behind(plan: Plan, observed: Observed) -> Finding | None:
    """What of the read side is not as wished. Commands are taken all the same."""
    seen = {one.name: one for one in observed.deployments}
    for name, reason in plan.reads:
        behind = seen[name].behind if name in seen else "it does not exist yet"
        if behind is not None:
            return Finding("Ready", "False", reason, f"{name}: {behind}")
    return None


def _degraded(plan: Plan, observed: Observed) -> Finding | None:
    """Which shards have fewer copies in sync than they have copies."""
    lacks = lacking(observed, plan.shards)
    if not lacks:
        return None
    told = ", ".join(
        f"{one}: {len(whole(observed, one))} of {expected(observed, one)}" for one in lacks
    )
    return Finding(
        "Degraded", "True", Reason.COPIES_OUT_OF_SYNC, f"copies in sync by shard: {told}"
    )


def _ready(plan: Plan, observed: Observed, mode: Reconciliation) -> Finding:
    if plan.problems:
        return Finding("Ready", "False", plan.problems[0].reason, plan.problems[0].message)
    if plan.deleting:
        told = plan.waiting or "the engine is being deleted"
        return Finding("Ready", "False", Reason.DELETING, told)
    if mode == "Plan" and (plan.actions or plan.rebalancing.lines):
        count = len(plan.actions) + len(plan.rebalancing.lines)
        message = f"{count} actions wait; see status.plan"
        return Finding("Ready", "False", Reason.PLAN_ONLY, message)
    if any(isinstance(one, Apply | Create | MakeKey | Scale) for one in plan.actions):
        return Finding("Ready", "False", Reason.CREATING, "children are being made or changed")
    away = unready(observed, plan.shards)
    if plan.waiting is not None:
        return Finding("Ready", "False", Reason.WAITING_FOR_BUDGET, plan.waiting)
    if plan.upgrade.message:
        return Finding("Ready", "False", Reason.UPGRADING, plan.upgrade.message)
    if plan.rolling:
        return Finding("Ready", "False", Reason.ROLLING_RESTART, _away(away) or "one by one")
    if away and plan.restoring:
        told = f"{_away(away)}; their volumes are filled from {plan.restoring}"
        return Finding("Ready", "False", Reason.RESTORING, told)
    if away:
        return Finding("Ready", "False", Reason.SHARDS_NOT_READY, _away(away))
    behind = _gateway_behind(observed)
    return (
        _shards_behind(plan, observed)
        or (behind and Finding("Ready", "False", Reason.GATEWAY_NOT_READY, behind))
        or _reads_behind(plan, observed)
        or _slots_elsewhere(plan.rebalancing)
        or Finding("Ready", "True", Reason.AS_WISHED, "all pods are as wished")
    )


def _shards_behind(plan: Plan, observed: Observed) -> Finding | None:
    """What of shards that all serve is not as wished."""
    unseen = unsettled(observed, plan.shards)
    if unseen:
        told = f"templates of shards that nobody has looked at yet: {', '.join(map(str, unseen))}"
        return Finding("Ready", "False", Reason.CREATING, told)
    degraded = _degraded(plan, observed)
    if degraded is not None:
        return Finding("Ready", "False", degraded.reason, degraded.message)
    copies = changing(observed, plan.shards, plan.copies)
    if copies:
        told = ", ".join(f"{shard}: {count} of {plan.copies}" for shard, count in copies.items())
        return Finding("Ready", "False", Reason.COPIES_CHANGING, f"copies by shard: {told}")
    return None


def _slots_elsewhere(found: Rebalancing) -> Finding | None:
    """What is said while the slots are not where they are wished. Commands are taken."""
    if found.is_moving:
        return Finding("Ready", "False", found.reason, found.message)
    if found.lines:
        return Finding("Ready", "False", Reason.PAUSED_BY_SPEC, "; ".join(found.lines))
    return None


def _away(shards: Sequence[int]) -> str:
    return f"shards not ready: {', '.join(map(str, shards))}" if shards else ""


def _available(observed: Observed) -> Finding:
    shard_map = observed.map.shard_map if observed.map is not None else None
    if shard_map is None:
        return Finding("Available", "Unknown", Reason.NOT_OBSERVED, "no shard map was seen")
    away = unready(observed, shard_map.shards)
    if away:
        return Finding("Available", "False", Reason.SHARDS_NOT_READY, _away(away))
    if observed.gateway is None or not observed.gateway.available:
        return Finding("Available", "False", Reason.GATEWAY_NOT_READY, "no gateway serves")
    return Finding("Available", "True", Reason.SERVING, "commands are taken for all slots")


def stalled(problem: Problem) -> tuple[Finding, ...]:
    """What is said about an engine whose spec cannot be read."""
    return (
        Finding("Ready", "False", problem.reason, problem.message),
        Finding("Available", "Unknown", Reason.NOT_OBSERVED, "the spec cannot be read"),
        Finding("Stalled", "True", problem.reason, problem.message),
    )


def conditions(
    found: Iterable[Finding], *, before: Sequence[Any], generation: int, now: str
) -> tuple[Condition, ...]:
    """Findings as conditions, with the times of those whose status has not changed."""
    since = {
        one.get("type"): one.get("lastTransitionTime", now)
        for one in before
        if isinstance(one, dict)
        and any(one.get("type") == new.type and one.get("status") == new.status for new in found)
    }
    return tuple(
        Condition(
            one.type, one.status, one.reason, _bounded(one.message, one.reason), generation,
            since.get(one.type, now),
        )
        for one in found
    )  # fmt: skip


def _bounded(message: str, reason: Reason) -> str:
    """The message with its page, within what a condition may hold."""
    page = f" [{reason.runbook}]"
    return f"{message[: MESSAGE_MAX - len(page)]}{page}"
