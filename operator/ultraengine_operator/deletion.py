"""Deleting an engine: what goes, what stays, and when the object is let go.

    Retain     the object is let go; its children go with it, volumes and map stay
    Snapshot   likewise, once every shard takes no command any more and has backed itself up
    Delete     pods first, then volumes, records and map, then the object is let go

Delete needs `spec.confirmDeletion` equal to the name, else it is as Retain once the deadline is
over. The deadline and the annotation force-finalize let go of any object: volumes then stay,
because what is not deleted by consent is kept. Nothing here waits for a namespace to survive.
"""

from collections.abc import Iterable

import msgspec

from ultraengine_operator import names
from ultraengine_operator.actions import Action, Delete, SetFinalizer
from ultraengine_operator.api.types import UltraEngine
from ultraengine_operator.backups import Ask
from ultraengine_operator.observed import Observed, Ref
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rollout import timestamp_s, unready

LOOK_AGAIN_S = 5.0


class Deletion(msgspec.Struct, frozen=True):
    """The next actions for an engine that is being deleted, and what it waits for."""

    actions: tuple[Action, ...] = ()
    problem: Problem | None = None
    look_again_s: float | None = None
    last_backups: tuple[Ask, ...] = ()
    waiting: str | None = None


_LET_GO = Deletion((SetFinalizer(present=False),))


def deletion(
    engine: UltraEngine, observed: Observed, *, deadline_s: float, now_s: float
) -> Deletion:
    """What is next for an engine that is being deleted."""
    metadata, spec = engine.metadata, engine.spec
    if names.FINALIZER not in metadata.finalizers:
        return Deletion()
    age_s = now_s - timestamp_s(metadata.deletion_timestamp or "")
    if age_s > deadline_s or metadata.annotations.get(names.FORCE_FINALIZE) == "true":
        return _LET_GO
    left_s = deadline_s - age_s + 1.0
    if spec.deletion_policy == "Retain":
        return _LET_GO
    if spec.deletion_policy == "Snapshot":
        return _back_up(engine, observed, f"after {int(deadline_s)} s it is let go", left_s)
    if spec.confirm_deletion != metadata.name:
        told = (
            f"spec.confirmDeletion is not {metadata.name!r}; after {int(deadline_s)} s it is let "
            "go and its volumes stay"
        )
        return Deletion((), Problem(Reason.DELETION_NOT_CONFIRMED, told), left_s)
    return _delete(engine, observed)


def _back_up(engine: UltraEngine, observed: Observed, otherwise: str, left_s: float) -> Deletion:
    """Every shard backs itself up for the last time, or the deadline lets go; volumes stay."""
    shards = tuple(one.shard for one in observed.sets)
    if not shards:
        return _LET_GO
    if engine.spec.backup is None:
        told = f"spec.backup names no place for a last backup; {otherwise} and its volumes stay"
        return Deletion((), Problem(Reason.BACKUP_NOT_CONFIGURED, told), left_s)
    said = {one.ask: one for one in observed.backups}
    away = unready(observed, shards)
    # A shard that has answered stays asked for, or its answer would be forgotten.
    asks = tuple(
        ask
        for ask in (Ask(engine.metadata.uid, shard, last=True) for shard in shards)
        if ask in said or ask.shard not in away
    )
    missing = [ask for ask in asks if ask not in said or said[ask].image is None]
    silent = [shard for shard in shards if all(ask.shard != shard for ask in asks)]
    if not missing and not silent:
        return Deletion(_LET_GO.actions, last_backups=asks)
    for ask in missing:
        word = said.get(ask)
        if word is not None and word.reason is not None:
            told = f"last backup of shard {ask.shard}: {word.message}; {otherwise}"
            return Deletion((), Problem(word.reason, told), left_s, asks)
    if silent:
        told = f"shards without a last backup do not serve: {_list(silent)}; {otherwise}"
        return Deletion((), Problem(Reason.SHARD_UNREACHABLE, told), left_s, asks)
    waiting = f"shards that back up for the last time: {_list(ask.shard for ask in missing)}"
    return Deletion((), None, left_s, asks, waiting)


def _list(shards: Iterable[int]) -> str:
    return ", ".join(map(str, shards))


def _delete(engine: UltraEngine, observed: Observed) -> Deletion:
    owned = [
        one for one in observed.objects
        if one.owner_uid == engine.metadata.uid and one.ref.kind in ("StatefulSet", "Deployment")
    ]  # fmt: skip
    if owned:
        actions = tuple(Delete(one.ref, one.uid) for one in owned if not one.deleting)
        return Deletion(actions, None, LOOK_AGAIN_S)
    if observed.pods:
        return Deletion((), None, LOOK_AGAIN_S)
    uid = engine.metadata.annotations.get(names.ADOPT, engine.metadata.uid)
    claims = [claim for claim in observed.claims if claim.engine_uid == uid]
    ours = {Ref("PersistentVolumeClaim", claim.name) for claim in claims}
    if observed.map is not None and observed.map.engine_uid == uid:
        ours.add(Ref("ConfigMap", f"{engine.metadata.name}-shardmap"))
    ours |= {Ref("Lease", one.name) for one in observed.records if one.engine_uid == uid}
    if ours:
        gone = [one for one in observed.objects if one.ref in ours and not one.deleting]
        # Volumes first: a map or a record without its volumes is no riddle, volumes without their
        # map or record are one.
        gone.sort(key=lambda one: (one.ref.kind != "PersistentVolumeClaim", one.ref))
        return Deletion(tuple(Delete(one.ref, one.uid) for one in gone), None, LOOK_AGAIN_S)
    return _LET_GO
