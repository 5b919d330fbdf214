"""What a plan consists of: idempotent steps, each described in one line for people."""

from typing import Any

import msgspec

from ultraengine_operator.authority import Step
from ultraengine_operator.observed import Ref
from ultraengine_operator.specs.view import Manifest


class SetFinalizer(msgspec.Struct, frozen=True):
    """Hold the UltraEngine while it is being deleted, or let it go."""

    present: bool


class Apply(msgspec.Struct, frozen=True):
    """Make a child as it was rendered (server-side apply, never forced)."""

    manifest: Manifest
    digest: str


class Create(msgspec.Struct, frozen=True):
    """Make an object that is never changed afterwards; an existing one stays as it is."""

    manifest: Manifest


class MakeKey(msgspec.Struct, frozen=True):
    """Create a Secret with a new random key; an existing one stays as it is."""

    manifest: Manifest
    """Without its content: chance is the driver's."""


class MakeAuthority(msgspec.Struct, frozen=True):
    """Create the Secret of a new certificate authority; an existing one stays as it is."""

    manifest: Manifest
    """Without its content: keys are the driver's."""


class TurnAuthority(msgspec.Struct, frozen=True):
    """One step of an authority's change, if it is still the one that was seen."""

    name: str
    version: str
    step: Step
    asked: str


class IssueCertificate(msgspec.Struct, frozen=True):
    """A certificate for the copies of a shard, in place of the one that was seen, if any."""

    manifest: Manifest
    authority: str
    """Name of the Secret of who signs."""
    hosts: tuple[str, ...]
    version: str | None
    """The resourceVersion of the Secret that it replaces."""


class LabelPod(msgspec.Struct, frozen=True):
    """Say on a pod, this very one, whether it leads: the shard's Service goes by it."""

    name: str
    uid: str
    role: str


class SealMap(msgspec.Struct, frozen=True):
    """Publish the first map again under the next version, if it is still the one that was seen."""

    name: str
    version: str
    """The resourceVersion that was seen: who has moved a slot since goes first."""
    content: str


class Delete(msgspec.Struct, frozen=True):
    """Remove an object of the engine, this very one: a late request must not meet a new volume
    or map of the same name."""

    ref: Ref
    uid: str


class RestartPod(msgspec.Struct, frozen=True):
    """Delete one pod, this very one, so that its set makes it anew."""

    name: str
    uid: str


class Scale(msgspec.Struct, frozen=True):
    """Give a Deployment its number of pods.

    The number is in no manifest: server-side apply would then own it, so that giving it to an
    autoscaler would reset it to 1, and taking it back would be a conflict.
    """

    name: str
    replicas: int


class ExpandClaim(msgspec.Struct, frozen=True):
    """Ask for a larger volume."""

    name: str
    size: str


Action = (
    SetFinalizer
    | Apply
    | Create
    | MakeKey
    | MakeAuthority
    | TurnAuthority
    | IssueCertificate
    | LabelPod
    | SealMap
    | Delete
    | RestartPod
    | Scale
    | ExpandClaim
)


def ref_of(manifest: Manifest) -> Ref:
    """The object that a manifest describes."""
    metadata: dict[str, Any] = manifest["metadata"]
    return Ref(manifest["kind"], metadata["name"])


def describe(action: Action) -> str:
    """One line for `status.plan`, Events and logs."""
    match action:
        case SetFinalizer(present):
            return "hold the object until its deletion is done" if present else "let the object go"
        case Apply(manifest) | Create(manifest) | MakeKey(manifest) | MakeAuthority(manifest):
            verb = "apply" if isinstance(action, Apply) else "create"
            ref = ref_of(manifest)
            return f"{verb} {ref.kind} {ref.name}"
        case TurnAuthority(name, _, step):
            return f"{step.value} Secret {name}"
        case IssueCertificate(manifest):
            return f"issue the certificate of Secret {ref_of(manifest).name}"
        case LabelPod(name, _, role):
            return f"label Pod {name} {role}"
        case SealMap(name):
            return f"publish the next version of ConfigMap {name}: every shard has its volume"
        case Delete(ref, _):
            return f"delete {ref.kind} {ref.name}"
        case RestartPod(name):
            return f"restart Pod {name}"
        case Scale(name, replicas):
            return f"scale Deployment {name} to {replicas}"
        case ExpandClaim(name, size):
            return f"expand PersistentVolumeClaim {name} to {size}"
