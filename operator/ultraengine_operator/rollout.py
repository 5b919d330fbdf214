"""Restarting shards for a new template: one pod at a time, each gated on the one before.

StatefulSets are `OnDelete`: nothing restarts by itself. A pod that is not ready and has the old
template may be replaced, or a bad template could never be mended; otherwise every shard must be
ready first, with all of its copies in sync. Of several copies the leader's is last, and a pod whose
copy counts stays while another one is missing. A replaced pod that is not ready in time halts this
engine and the fleet.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ultraengine_operator.actions import RestartPod
from ultraengine_operator.budget import Fleet, Standing, refusal
from ultraengine_operator.copies import in_turn, lacking, may_go, serving
from ultraengine_operator.observed import Observed, SeenPod
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.specs.view import EngineView


class Rollout(msgspec.Struct, frozen=True):
    """The next restart, or why there is none."""

    actions: tuple[RestartPod, ...] = ()
    problems: tuple[Problem, ...] = ()
    waiting: str | None = None
    rolling: bool = False
    standing: Standing = Standing.QUIET
    look_again_s: float | None = None


def timestamp_s(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def outdated(observed: Observed, shards: tuple[int, ...]) -> tuple[SeenPod, ...]:
    """Pods whose template is not the newest of their set."""
    found: list[SeenPod] = []
    for shard in shards:
        owner = observed.set_of(shard)
        if owner is not None and owner.settled and owner.revision:
            found += [
                pod
                for pod in observed.pods_of(shard)
                if pod.revision != owner.revision and not pod.deleting
            ]
    return tuple(found)


def unsettled(observed: Observed, shards: tuple[int, ...]) -> tuple[int, ...]:
    """Shards with a template that its controller has not seen: `outdated` does not know them."""
    return tuple(
        shard
        for shard in shards
        if (owner := observed.set_of(shard)) is not None and not owner.settled
    )


def unready(observed: Observed, shards: tuple[int, ...]) -> tuple[int, ...]:
    """Shards without a pod that serves and stays."""
    return tuple(shard for shard in shards if serving(observed, shard) is None)


def _overdue_s(observed: Observed, waiting: tuple[SeenPod, ...], now_s: float) -> float:
    """The age of the oldest pod of the newest template that is not ready; 0 without one.

    A volume that is being filled takes as long as there is content.
    """
    ages = [
        now_s - timestamp_s(pod.created)
        for pod in observed.pods
        if not pod.ready
        and not pod.deleting
        and not pod.filling
        and pod not in waiting
        and pod.created
    ]
    return max(ages, default=0.0)


def _standing(prior: Standing | None, *, unready: bool, old: bool, overdue: bool) -> Standing:
    if not old and not unready:
        return Standing.QUIET
    if prior is None:
        # First look since the start: who is away may be away because of us.
        if overdue:
            return Standing.FAILED if old else Standing.QUIET
        return Standing.CHANGING if unready else Standing.QUIET
    if prior is Standing.QUIET:
        return Standing.QUIET
    return Standing.FAILED if overdue else Standing.CHANGING


def _next(
    observed: Observed, replaceable: Sequence[SeenPod], whole: Sequence[SeenPod], room: int
) -> tuple[RestartPod, ...]:
    """Those that serve nobody first, one at a time; else the first of each shard that has room."""
    first: dict[int, SeenPod] = {}
    for pod in in_turn(observed, replaceable or whole):
        first.setdefault(pod.shard, pod)
    chosen = list(first.values())[: 1 if replaceable else room]
    return tuple(RestartPod(pod.name, pod.uid) for pod in chosen)


def rollout(
    view: EngineView,
    observed: Observed,
    *,
    fleet: Fleet,
    deadline_s: float,
    now_s: float,
    at_once: int = 1,
) -> Rollout:
    """The next pods to restart for an engine whose children are all applied, each of another shard;
    at most `at_once` shards are away for it."""
    old = outdated(observed, view.shards)
    lacks = lacking(observed, view.shards)
    away = tuple(sorted({*unready(observed, view.shards), *lacks}))
    begun = bool(observed.pods)
    age_s = _overdue_s(observed, old, now_s)
    key = f"{view.namespace}/{view.name}"
    standing = _standing(
        fleet.standings.get(key),
        unready=bool(away) and begun,
        old=bool(old),
        overdue=age_s > deadline_s,
    )
    replaceable = [pod for pod in old if not pod.ready and may_go(observed, pod)]
    if standing is Standing.FAILED and not replaceable:
        problem = Problem(
            Reason.ROLLOUT_HALTED,
            f"a restarted pod is not ready after {int(deadline_s)} s; shards away: "
            f"{', '.join(map(str, away))}",
            holds=False,
        )
        return Rollout(problems=(problem,), rolling=bool(old), standing=standing)
    look_again_s = max(deadline_s - age_s, 0.0) + 1.0 if away and begun else None
    if not old:
        return Rollout(standing=standing, look_again_s=look_again_s)
    room = at_once - len(away)
    if room <= 0 and not replaceable:
        return Rollout(rolling=True, standing=standing, look_again_s=look_again_s)
    waiting = refusal(fleet, key)
    if waiting is not None:
        return Rollout(rolling=True, waiting=waiting, standing=standing)
    return Rollout(
        actions=_next(observed, replaceable, [one for one in old if one.shard not in away], room),
        rolling=True,
        standing=Standing.CHANGING,
        look_again_s=deadline_s,
    )
