"""Deleting an engine: what goes, what stays, and when the object is let go.

    Retain, Snapshot   the object is let go; its children go with it, volumes and map stay
    Delete             pods first, then volumes, records and map, then the object is let go

Delete needs `spec.confirmDeletion` equal to the name, else it is as Retain once the deadline is
over. The deadline and the annotation force-finalize let go of any object: volumes then stay,
because what is not deleted by consent is kept. Nothing here waits for a namespace to survive.
"""

from ultraengine_operator import names
from ultraengine_operator.actions import Action, Delete, SetFinalizer
from ultraengine_operator.api.types import UltraEngine
from ultraengine_operator.observed import Observed, Ref
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rollout import timestamp_s

LOOK_AGAIN_S = 5.0
Deletion = tuple[tuple[Action, ...], Problem | None, float | None]
_LET_GO: Deletion = ((SetFinalizer(present=False),), None, None)


def deletion(
    engine: UltraEngine, observed: Observed, *, deadline_s: float, now_s: float
) -> Deletion:
    """The next actions for an engine that is being deleted, a problem, and when to look again."""
    metadata, spec = engine.metadata, engine.spec
    if names.FINALIZER not in metadata.finalizers:
        return (), None, None
    age_s = now_s - timestamp_s(metadata.deletion_timestamp or "")
    if age_s > deadline_s or metadata.annotations.get(names.FORCE_FINALIZE) == "true":
        return _LET_GO
    left_s = deadline_s - age_s + 1.0
    if spec.deletion_policy == "Retain":
        return _LET_GO
    if spec.deletion_policy == "Snapshot":
        return (), Problem(
            Reason.SNAPSHOT_NOT_AVAILABLE,
            f"no last snapshot can be taken; after {int(deadline_s)} s it is let go and "
            "its volumes stay",
        ), left_s  # fmt: skip
    if spec.confirm_deletion != metadata.name:
        return (), Problem(
            Reason.DELETION_NOT_CONFIRMED,
            f"spec.confirmDeletion is not {metadata.name!r}; after {int(deadline_s)} s it is let "
            "go and its volumes stay",
        ), left_s  # fmt: skip
    return _delete(engine, observed)


def _delete(engine: UltraEngine, observed: Observed) -> Deletion:
    owned = [
        one for one in observed.objects
        if one.owner_uid == engine.metadata.uid and one.ref.kind in ("StatefulSet", "Deployment")
    ]  # fmt: skip
    if owned:
        actions = tuple(Delete(one.ref, one.uid) for one in owned if not one.deleting)
        return actions, None, LOOK_AGAIN_S
    if observed.pods:
        return (), None, LOOK_AGAIN_S
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
        return tuple(Delete(one.ref, one.uid) for one in gone), None, LOOK_AGAIN_S
    return _LET_GO
