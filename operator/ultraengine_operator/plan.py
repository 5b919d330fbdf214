"""What is to be done next for one engine: desired and observed in, ordered actions out.

A function of values: no clock, no order of events, nothing remembered but what is given.  The
steps of one plan may be cut off anywhere; the next plan is made from what is then seen.

Problems that hold (`Problem.holds`) leave everything as it is. Others stop only what they are
about, and the rest of the engine goes on. A shard that may still hold slots is kept.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ultraengine.router.shard_map import ShardMap
from ultraengine_operator import names, rebalance
from ultraengine_operator.actions import (
    Action,
    Apply,
    Create,
    Delete,
    ExpandClaim,
    IssueCertificate,
    LabelPod,
    MakeAuthority,
    MakeKey,
    Scale,
    SealMap,
    SetFinalizer,
    TurnAuthority,
    ref_of,
)
from ultraengine_operator.api.quantities import quantity
from ultraengine_operator.api.types import EngineSpec, UltraEngine
from ultraengine_operator.authority import is_due, next_step
from ultraengine_operator.backups import Ask
from ultraengine_operator.budget import Fleet, Standing
from ultraengine_operator.deletion import deletion
from ultraengine_operator.observed import Observed, Ref, digest
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rebalance import QUIET, Rebalancing, Wish
from ultraengine_operator.restores import failures, restored_from
from ultraengine_operator.rollout import Rollout, rollout, unready
from ultraengine_operator.specs import reads, replicas, shared
from ultraengine_operator.specs.render import NEWEST, RULES, render
from ultraengine_operator.specs.view import EngineView, Manifest
from ultraengine_operator.upgrade import NOTHING, Upgrade, upgrade

RENDERED: Final = (
    "StatefulSet", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler",
    "Ingress", "ServiceAccount", "Role", "RoleBinding", "Shard",
)  # fmt: skip
"""Kinds of which an engine has nothing but what is rendered for it."""
_REASONS: Final = {"query": Reason.QUERY_NOT_READY, "projection": Reason.PROJECTION_NOT_READY}


class Settled(msgspec.Struct, frozen=True):
    """An apply that was carried out: what was rendered, and what the object was after it."""

    rendered: str
    live: str


class Settings(msgspec.Struct, frozen=True):
    """The operator's own configuration, as far as plans depend on it."""

    default_image: str | None = None
    rollout_deadline_s: float = 900.0
    """A restarted pod that is not ready by then halts the restart, and all others."""
    shards_changing_max: int = 1
    """Shards of one engine that are upgraded, or whose pods are restarted, at once."""
    candidate_s: float = 3_600.0
    """How long a candidate may take to decide a shard's log again."""
    deletion_deadline_s: float = 600.0
    """After this an object being deleted is let go, whatever is left."""


class Plan(msgspec.Struct, frozen=True):
    """The actions in order, and what the report needs to know beside them."""

    actions: tuple[Action, ...] = ()
    problems: tuple[Problem, ...] = ()
    waiting: str | None = None
    """Why a restart that is due does not begin: the fleet's budget. Of a deletion: for what."""
    rolling: bool = False
    deleting: bool = False
    standing: Standing = Standing.QUIET
    shards: tuple[int, ...] = ()
    shard_map: ShardMap | None = None
    render_version: int = 0
    image: str = ""
    copies: int = 1
    restoring: str = ""
    """Where volumes are being filled from."""
    reads: tuple[tuple[str, Reason], ...] = ()
    """Deployments of the read side, and what is said of one that is not as wished."""
    look_again_s: float | None = None
    upgrade: Upgrade = NOTHING
    """How far the engine is on its way to another image."""
    wish: Wish | None = None
    """How the slots are to be shared; None when none may be moved now."""
    rebalancing: Rebalancing = QUIET
    """How far that is, once the driver was asked."""
    last_backups: tuple[Ask, ...] = ()
    """What shards are asked before the engine is let go."""


def plan(
    engine: UltraEngine,
    observed: Observed,
    *,
    settled: Mapping[Ref, Settled],
    fleet: Fleet,
    settings: Settings,
    now_s: float,
) -> Plan:
    """The next actions for an engine."""
    if engine.metadata.deletion_timestamp is not None:
        ending = deletion(engine, observed, deadline_s=settings.deletion_deadline_s, now_s=now_s)
        return Plan(
            ending.actions,
            (ending.problem,) if ending.problem is not None else (),
            waiting=ending.waiting,
            deleting=True,
            look_again_s=ending.look_again_s,
            last_backups=ending.last_backups,
        )
    try:
        view, problems = view_of(engine, observed, settings)
    except Problem as problem:
        return Plan(problems=(problem,))
    step = upgrade(
        view,
        observed,
        at_once=settings.shards_changing_max,
        within_s=settings.candidate_s,
        now_s=now_s,
    )
    view = msgspec.structs.replace(view, proofs=step.proofs)
    actions = (
        *_hold(engine),
        *_foundations(view, observed),
        *_trust(view, observed, now_s),
        *_children(view, observed, settled, step),
        *_scaled(view, observed),
        *_sealed(view, observed),
        *_roles(view, observed),
        *_surplus(view, observed),
        *_larger_claims(view, observed),
        *step.actions,
    )
    rolled = Rollout()
    if not any(isinstance(action, Apply) for action in actions):
        # A pod is only restarted for a template that its set's controller has seen.
        rolled = rollout(
            view,
            observed,
            fleet=fleet,
            deadline_s=settings.rollout_deadline_s,
            now_s=now_s,
            at_once=settings.shards_changing_max,
        )
    return Plan(
        actions=(*actions, *(() if step.frozen else rolled.actions)),
        problems=(*problems, *step.problems, *rolled.problems),
        waiting=rolled.waiting,
        rolling=rolled.rolling,
        standing=rolled.standing,
        shards=view.shards,
        shard_map=view.shard_map,
        restoring=restored_from(engine.spec, view.shard_map),
        render_version=view.render_version,
        image=view.image,
        copies=view.wished,
        reads=_reads(view),
        look_again_s=_sooner(step.look_again_s, rolled.look_again_s),
        upgrade=step,
        wish=None
        if any(one.reason is Reason.PROJECTIONS_NEED_SHARDS for one in problems)
        else rebalance.wish(engine.spec, observed, view.shards, view.shard_map),
    )


def _reads(view: EngineView) -> tuple[tuple[str, Reason], ...]:
    wished = reads.wished(view.engine.spec, view.name)
    return tuple((name, _REASONS[component]) for name, component in wished)


def view_of(
    engine: UltraEngine, observed: Observed, settings: Settings
) -> tuple[EngineView, tuple[Problem, ...]]:
    """What the builders look at, and the problems that do not hold.  Raises `Problem`."""
    spec = engine.spec
    image = spec.image or settings.default_image
    if image is None:
        raise Problem(Reason.IMAGE_MISSING, "neither spec.image nor the operator names an image")
    engine_uid = _engine_uid(engine, observed)
    shard_map = _shard_map(engine, observed)
    wished = range(spec.shards)
    kept = _kept(spec, observed, shard_map)
    copies = _copies(spec, observed, shard_map)
    replicated = copies > 1 or _keeps_records(observed)
    problems = list(_passing(spec, observed, engine.metadata.name, replicated=replicated))
    problems += failures(spec, observed, shard_map)
    refused = rebalance.refusal(spec, kept)
    if refused is not None:
        problems.append(refused)
    view = EngineView(
        engine=engine,
        image=image,
        engine_uid=engine_uid,
        render_version=_render_version(engine, observed),
        shards=(*wished, *kept),
        claim_sizes={one.shard: one.claim_size for one in observed.sets},
        shard_map=shard_map,
        copies=_pods(copies, observed),
        wished=copies,
        replicated=replicated,
        claim_copies={one.shard: one.claim_copies for one in observed.sets},
    )
    problems += [
        Problem(
            Reason.RECORD_MISSING,
            f"shard {shard} has volumes and the Lease {names.shard_name(view.name, shard)}, which "
            "says who leads, is gone",
            holds=False,
        )
        for shard in view.shards
        if _has_lost_record(view, observed, shard)
    ]
    return view, tuple(problems)


def _copies(spec: EngineSpec, observed: Observed, shard_map: ShardMap) -> int:
    """How many copies each shard is to have now: what is restored is one, which is the first of
    several afterwards."""
    alone = restored_from(spec, shard_map) and not _keeps_records(observed)
    return 1 if alone else spec.replicas_per_shard


def _keeps_records(observed: Observed) -> bool:
    """Whether shards keep a record: nobody goes back from several copies to one without it."""
    made = [one.copies > 0 for one in observed.sets]
    made += [one.copies > 1 or one.replica > 0 for one in observed.claims]
    return bool(observed.records) or any(made)


def _pods(copies: int, observed: Observed) -> int:
    """How many pods each shard has: one for each copy that is wished, or still counts.

    A pod goes when no shard's record needs it any more; its volume stays.
    """
    needed = [copies]
    for one in observed.records:
        owner = observed.set_of(one.shard)
        made = 0 if owner is None else owner.copies
        needed.append(one.places or made)
    return max(needed)


def _has_lost_record(view: EngineView, observed: Observed, shard: int) -> bool:
    """Whether a record would have to be made anew beside volumes: that is going back behind what
    the copies have sworn, and nobody may do it."""
    if not view.replicated or observed.record_of(shard) is not None:
        return False
    owner = observed.set_of(shard)
    claims = [claim for claim in observed.claims if claim.shard == shard]
    several = any(claim.copies > 1 or claim.replica > 0 for claim in claims)
    return several or (owner is not None and owner.copies > 0 and bool(claims))


def _kept(spec: EngineSpec, observed: Observed, shard_map: ShardMap) -> tuple[int, ...]:
    """Shards that are not wished any more and may still hold a slot: by the map, or because their
    own word is still out."""
    there = {one.shard for one in observed.sets if one.shard not in observed.emptied}
    return tuple(sorted(shard for shard in {*shard_map.shards, *there} if shard >= spec.shards))


def _engine_uid(engine: UltraEngine, observed: Observed) -> str:
    uid = engine.metadata.annotations.get(names.ADOPT, engine.metadata.uid)
    owners = {claim.name: claim.engine_uid for claim in observed.claims}
    owners.update({record.name: record.engine_uid for record in observed.records})
    if observed.map is not None:
        owners[f"{engine.metadata.name}-shardmap"] = observed.map.engine_uid
    strangers = sorted(name for name, owner in owners.items() if owner != uid)
    if strangers:
        raise Problem(
            Reason.VOLUMES_OF_ANOTHER_ENGINE,
            f"{strangers[0]} belongs to the engine with uid {owners[strangers[0]] or 'unknown'}; "
            f"annotate {names.ADOPT} to take it over",
        )
    return uid


def _shard_map(engine: UltraEngine, observed: Observed) -> ShardMap:
    if observed.map is None:
        if observed.claims:
            raise Problem(
                Reason.SHARD_MAP_MISSING,
                f"{observed.claims[0].name} holds data and the ConfigMap "
                f"{engine.metadata.name}-shardmap is gone",
            )
        return ShardMap.even(engine.spec.shards)
    if observed.map.shard_map is None:
        raise Problem(Reason.SHARD_MAP_UNREADABLE, observed.map.problem)
    return observed.map.shard_map


def _render_version(engine: UltraEngine, observed: Observed) -> int:
    asked = engine.metadata.annotations.get(names.RENDER_VERSION)
    version = asked or str(min((one.render_version for one in observed.sets), default=NEWEST))
    if not version.isdecimal() or int(version) not in RULES:
        known = ", ".join(map(str, sorted(RULES)))
        raise Problem(
            Reason.RENDER_VERSION_UNKNOWN,
            f"render version {version} is not one that this operator has: {known}",
        )
    return int(version)


def _passing(spec: EngineSpec, observed: Observed, name: str, *, replicated: bool) -> list[Problem]:
    problems = []
    ca = names.authority_name(name)
    if replicated and observed.authority is None and observed.has(Ref("Secret", ca)):
        problems.append(
            Problem(
                Reason.AUTHORITY_UNREADABLE,
                f"the Secret {ca} holds no certificate authority; no certificate is made or "
                "renewed",
                holds=False,
            )
        )
    shrunk = [one for one in observed.claims if quantity(one.size) > quantity(spec.storage.size)]
    if shrunk:
        problems.append(
            Problem(
                Reason.STORAGE_SHRINK_REFUSED,
                f"{shrunk[0].name} has {shrunk[0].size} and spec.storage.size is "
                f"{spec.storage.size}; volumes do not shrink",
                holds=False,
            )
        )
    return problems


def _hold(engine: UltraEngine) -> tuple[Action, ...]:
    held = names.FINALIZER in engine.metadata.finalizers
    return () if held else (SetFinalizer(present=True),)


def _foundations(view: EngineView, observed: Observed) -> tuple[Action, ...]:
    """What pods mount and what is made once: before the pods."""
    actions: list[Action] = []
    for name, component in shared.keys(view.engine.spec.query.replicas).items():
        if not observed.has(Ref("Secret", f"{view.name}-{name}")):
            actions.append(MakeKey(shared.key_secret(view, name, component)))
    if observed.map is None:
        actions.append(Create(shared.shard_map(view)))
    for shard in view.shards if view.replicated else ():
        missing = observed.record_of(shard) is None
        if missing and not _has_lost_record(view, observed, shard):
            actions.append(Create(replicas.record(view, shard)))
    return tuple(actions)


def _trust(view: EngineView, observed: Observed, now_s: float) -> tuple[Action, ...]:
    """The authority of the copies' certificates, and those that are missing or due."""
    if not view.replicated:
        return ()
    name, authority = names.authority_name(view.name), observed.authority
    actions: list[Action] = []
    if authority is None:
        if observed.has(Ref("Secret", name)):
            return ()
        actions.append(MakeAuthority(replicas.authority(view)))
    else:
        asked = view.engine.metadata.annotations.get(names.ROTATE, "")
        # Those of shards that are gone are renewed no more, and hold nothing up.
        held = [observed.leaf(names.leaf_name(view.name, shard)) for shard in view.shards]
        leaves = [leaf for leaf in held if leaf is not None]
        step = next_step(authority, leaves, asked=asked, now_s=now_s)
        if step is not None:
            # Certificates follow in the next plan, which sees what has become of it.
            return (TurnAuthority(name, authority.version, step, asked),)
    for shard in view.shards:
        own = names.leaf_name(view.name, shard)
        hosts = names.replica_hosts(view.namespace, view.name, shard, view.copies)
        leaf = observed.leaf(own)
        if authority is None or is_due(leaf, authority, hosts, now_s):
            version = observed.version_of(Ref("Secret", own))
            actions.append(
                IssueCertificate(replicas.certificate(view, shard), name, hosts, version)
            )
    return tuple(actions)


def _roles(view: EngineView, observed: Observed) -> tuple[Action, ...]:
    """Who leads, by the record; who does so no more is told first."""
    actions = []
    for record in observed.records if view.replicated else ():
        for pod in observed.pods_of(record.shard):
            role = "leader" if pod.replica == record.leader else "follower"
            if record.epoch and pod.role != role and not pod.deleting:
                actions.append(LabelPod(pod.name, pod.uid, role))
    return tuple(sorted(actions, key=lambda one: (one.role == "leader", one.name)))


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _children(
    view: EngineView, observed: Observed, settled: Mapping[Ref, Settled], step: Upgrade
) -> tuple[Action, ...]:
    live = {one.ref: one.digest for one in observed.objects}
    actions: list[Action] = []
    for manifest in _in_turn(view, step):
        ref, rendered = ref_of(manifest), digest(manifest)
        known = settled.get(ref)
        if known is None or known.rendered != rendered or known.live != live.get(ref):
            actions.append(Apply(manifest, rendered))
    return tuple(actions)


def _in_turn(view: EngineView, step: Upgrade) -> Iterator[Manifest]:
    """Every child whose turn it is."""
    older = {
        image: {ref_of(one): one for one in render(msgspec.structs.replace(view, image=image))}
        for image in sorted(set(step.instead.values()))
    }
    for manifest in render(view):
        ref = ref_of(manifest)
        if ref in step.instead:
            yield older[step.instead[ref]][ref]
        elif ref not in step.held:
            yield manifest


def _sealed(view: EngineView, observed: Observed) -> tuple[Action, ...]:
    """A shard takes an empty volume for a new one while the first version of the map counts, and
    refuses it later (`router.first_ownership`).  So the first version ends when every shard that
    it names serves: a volume that is lost from then on is not forgotten by an empty one."""
    found = observed.map
    if found is None or view.shard_map.version > 1 or unready(observed, view.shard_map.shards):
        return ()
    sealed = msgspec.structs.replace(view.shard_map, version=view.shard_map.version + 1)
    return (SealMap(f"{view.name}-shardmap", found.version, sealed.encode().decode()),)


def _surplus(view: EngineView, observed: Observed) -> tuple[Action, ...]:
    """Children that the wish has no more: of shards without slots, of the read side, a scaler."""
    uid, rendered = view.engine.metadata.uid, {ref_of(one) for one in render(view)}
    return tuple(
        Delete(one.ref, one.uid)
        for one in observed.objects
        if one.owner_uid == uid
        and not one.deleting
        and one.ref.kind in RENDERED
        and one.ref not in rendered
    )


def _scaled(view: EngineView, observed: Observed) -> tuple[Action, ...]:
    """The number of pods of each Deployment.

    One that an autoscaler looks after is let alone above the least number, and brought there at
    once below it: a new Deployment would have one pod until the autoscaler first looks.
    """
    spec = view.engine.spec
    wished = {name: 1 for name, _ in reads.wished(spec, view.name)}
    if spec.query.replicas:
        wished[f"{view.name}-query"] = spec.query.replicas
    gateway = f"{view.name}-gateway"
    wished[gateway] = spec.gateway.replicas
    scaled = {gateway} if spec.gateway.autoscaling is not None else set()
    return tuple(
        Scale(one.name, wished[one.name])
        for one in observed.deployments
        if one.name in wished
        and one.desired != wished[one.name]
        and not (one.name in scaled and one.desired > wished[one.name])
    )


def _larger_claims(view: EngineView, observed: Observed) -> tuple[Action, ...]:
    size = view.engine.spec.storage.size
    return tuple(
        ExpandClaim(claim.name, size)
        for claim in observed.claims
        if not claim.deleting and quantity(claim.size) < quantity(size)
    )
