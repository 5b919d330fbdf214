"""What is seen of one engine: slim values, in an order of their own.

Made from whole objects as they arrive; what decisions do not need is dropped at the door, so
that thousands of pods fit into memory. `status` of our own kinds is never among it.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from ultraengine.model.candidate import Verdict, decode_verdict
from ultraengine.model.filled import Filled, decode_filled
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine_operator import names
from ultraengine_operator.authority import SeenAuthority, SeenLeaf, read_authority, read_leaf
from ultraengine_operator.backups import Said
from ultraengine_operator.records import SeenRecord, read_record

_VOLATILE: Final = ("resourceVersion", "generation", "managedFields", "creationTimestamp", "uid")

_canonical = msgspec.json.Encoder(order="sorted").encode


def digest(content: Mapping[str, Any]) -> str:
    """A short name of an object's wishes: equal wishes, equal name; status is none of them."""
    kept = {key: value for key, value in content.items() if key != "status"}
    if kept["kind"] == "Deployment":
        # An autoscaler's, or set apart from the rest (`actions.Scale`).
        kept["spec"] = {key: kept["spec"][key] for key in kept["spec"] if key != "replicas"}
    metadata = content.get("metadata", {})
    kept["metadata"] = {key: metadata[key] for key in metadata if key not in _VOLATILE}
    return hashlib.blake2b(_canonical(kept), digest_size=12).hexdigest()


class Ref(msgspec.Struct, frozen=True, order=True):
    """An object of the engine's namespace."""

    kind: str
    name: str


class SeenObject(msgspec.Struct, frozen=True):
    """Any child: whose it is, and what it says."""

    ref: Ref
    uid: str
    digest: str
    owner_uid: str | None
    shard: int | None
    deleting: bool = False
    version: str = ""


class SeenCandidate(msgspec.Struct, frozen=True):
    """The pod that decides a shard's log again with another image."""

    name: str
    uid: str
    shard: int
    image: str
    question: str
    phase: str
    """Pending, Running, Succeeded, Failed or Unknown, as Kubernetes says."""
    verdict: Verdict | None = None
    """What it has said at its end."""
    ended: str = ""
    """When."""
    why: str = ""
    """What Kubernetes says of an end without a verdict."""
    deleting: bool = False


class SeenSet(msgspec.Struct, frozen=True):
    """A shard's StatefulSet."""

    shard: int
    settled: bool
    """Whether its controller has seen the newest template."""
    revision: str
    render_version: int
    claim_size: str
    deleting: bool = False
    copies: int = 0
    """For how many copies it was rendered; 0: for one that keeps no record."""
    claim_copies: str = ""
    """The number in its template of claims."""
    image: str = ""
    proof: str = ""
    """The annotation `names.PROOF`."""


def number_of(name: str) -> int:
    """The number at the end of a name that a StatefulSet gives."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


class SeenPod(msgspec.Struct, frozen=True):
    """A pod of a shard."""

    name: str
    uid: str
    shard: int
    revision: str
    ready: bool
    created: str
    deleting: bool = False
    role: str = ""
    """Its label; empty before anybody has looked, and with one copy."""
    replicated: bool = False
    """Whether its template is that of one of several copies."""
    filling: bool = False
    """Whether its volume is still to be filled from a backup, or looked at for it."""
    not_filled: str = ""
    """Why that has not succeeded, after the last attempt."""
    filled: Filled | None = None
    """What it was filled with, before the first start of all."""

    @property
    def replica(self) -> int:
        """The number of its copy."""
        return number_of(self.name)


class SeenClaim(msgspec.Struct, frozen=True):
    """A volume claim of a shard."""

    name: str
    shard: int
    engine_uid: str
    size: str
    deleting: bool = False
    copies: int = 1
    """With how many copies its shard was made."""

    @property
    def replica(self) -> int:
        """The number of its copy."""
        return number_of(self.name)


class SeenDeployment(msgspec.Struct, frozen=True):
    """The Deployment of a gateway, of reads over SQL, or of a projection's worker."""

    name: str
    component: str
    settled: bool
    desired: int
    updated: int
    available: int
    image: str = ""

    @property
    def behind(self) -> str | None:
        """How many of its pods are not as wished; None when all are."""
        if self.settled and self.updated >= self.desired and self.available >= self.desired:
            return None
        return f"{min(self.updated, self.available)} of {self.desired} pods are as wished"


class SeenMap(msgspec.Struct, frozen=True):
    """The published shard map: the map, or why it cannot be read."""

    engine_uid: str
    shard_map: ShardMap | None
    problem: str = ""
    version: str = ""
    """The ConfigMap's resourceVersion, for a compare-and-swap."""


class SeenFailover(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How the present leadership of a shard began, as its leader says it; `status.lastFailover`."""

    old_epoch: str
    new_epoch: str
    acknowledged_offset: str
    promoted_offset: str
    chain: str
    lossless: Literal["True", "Unknown"]
    silent_since: str
    elected_at: str
    serving_at: str | None = None
    downtime: str | None = None


class SeenShard(msgspec.Struct, frozen=True):
    """What a shard answered last about itself."""

    shard: int
    state: str
    epoch: str
    offset: str
    last_failover: SeenFailover | None = None


class Observed(msgspec.Struct, frozen=True):
    """One engine's world. Tuples are sorted, so that equal worlds are equal values."""

    objects: tuple[SeenObject, ...] = ()
    sets: tuple[SeenSet, ...] = ()
    pods: tuple[SeenPod, ...] = ()
    candidates: tuple[SeenCandidate, ...] = ()
    claims: tuple[SeenClaim, ...] = ()
    deployments: tuple[SeenDeployment, ...] = ()
    map: SeenMap | None = None
    records: tuple[SeenRecord, ...] = ()
    authority: SeenAuthority | None = None
    leaves: tuple[SeenLeaf, ...] = ()
    emptied: tuple[int, ...] = ()
    """Shards that are not wished any more and hold no slot, as the shards' logs say; so it is not
    among what Kubernetes shows."""
    backups: tuple[Said, ...] = ()
    """What shards have said that were asked to back themselves up; likewise."""

    def record_of(self, shard: int) -> SeenRecord | None:
        """The record of a shard; None where one copy needs none."""
        return next((one for one in self.records if one.shard == shard), None)

    def leaf(self, name: str) -> SeenLeaf | None:
        """A certificate by the name of its Secret."""
        return next((one for one in self.leaves if one.name == name), None)

    @property
    def gateway(self) -> SeenDeployment | None:
        """The Deployment of the gateway."""
        return next((one for one in self.deployments if one.component == "gateway"), None)

    def pods_of(self, shard: int) -> tuple[SeenPod, ...]:
        """Pods of one shard."""
        return tuple(pod for pod in self.pods if pod.shard == shard)

    def set_of(self, shard: int) -> SeenSet | None:
        """The StatefulSet of one shard."""
        return next((one for one in self.sets if one.shard == shard), None)

    def version_of(self, ref: Ref) -> str | None:
        """The resourceVersion of a Secret; None where there is none."""
        return next((one.version for one in self.objects if one.ref == ref), None)

    def has(self, ref: Ref) -> bool:
        """Whether there is such an object."""
        return any(one.ref == ref for one in self.objects)


def observed_of(objects: Mapping[Ref, Mapping[str, Any]]) -> Observed:
    """The world of one engine from its objects, in whatever order they are given."""
    ordered = [objects[ref] for ref in sorted(objects)]
    of_kind = {
        kind: [one for one in ordered if one["kind"] == kind]
        for kind in (
            "StatefulSet",
            "Pod",
            "PersistentVolumeClaim",
            "Deployment",
            "ConfigMap",
            "Lease",
            "Secret",
        )
    }
    shards = {kind: [one for one in found if _shard(one) is not None]
              for kind, found in of_kind.items()}  # fmt: skip
    candidates = [one for one in shards["Pod"] if _label(one, names.COMPONENT) == "candidate"]
    maps = [_map(one) for one in of_kind["ConfigMap"] if _name(one).endswith("-shardmap")]
    return Observed(
        objects=tuple(_object(one) for one in ordered),
        sets=tuple(_set(one) for one in shards["StatefulSet"]),
        pods=tuple(_pod(one) for one in shards["Pod"] if one not in candidates),
        candidates=tuple(_candidate(one) for one in candidates),
        claims=tuple(_claim(one) for one in shards["PersistentVolumeClaim"]),
        deployments=tuple(_deployment(one) for one in of_kind["Deployment"]),
        map=maps[0] if maps else None,
        records=tuple(
            read_record(one, shard)
            for one in of_kind["Lease"]
            if (shard := _shard(one)) is not None and not _deleting(one)
        ),
        authority=next((one for one in map(_authority, of_kind["Secret"]) if one), None),
        leaves=tuple(one for one in map(_leaf, of_kind["Secret"]) if one),
    )


def _certificates(content: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(text) for key, text in (content.get("data") or {}).items()}


def _authority(content: Mapping[str, Any]) -> SeenAuthority | None:
    metadata = content["metadata"]
    if not _name(content).endswith("-ca"):
        return None
    return read_authority(
        _certificates(content), metadata.get("annotations") or {}, metadata["resourceVersion"]
    )


def _leaf(content: Mapping[str, Any]) -> SeenLeaf | None:
    if _shard(content) is None or not _name(content).endswith("-tls"):
        return None
    version = content["metadata"]["resourceVersion"]
    return read_leaf(_name(content), _certificates(content), version)


def _copies(text: str, otherwise: int = 1) -> int:
    return int(text) if text.isdecimal() else otherwise


def _name(content: Mapping[str, Any]) -> str:
    return str(content["metadata"]["name"])


def _label(content: Mapping[str, Any], label: str) -> str:
    return str(content["metadata"].get("labels", {}).get(label, ""))


def _shard(content: Mapping[str, Any]) -> int | None:
    text = _label(content, names.SHARD)
    return int(text) if text.isdecimal() else None


def _deleting(content: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in content["metadata"]


def _object(content: Mapping[str, Any]) -> SeenObject:
    owners = content["metadata"].get("ownerReferences", [])
    controllers = [owner["uid"] for owner in owners if owner.get("controller")]
    return SeenObject(
        Ref(content["kind"], _name(content)),
        str(content["metadata"].get("uid", "")),
        digest(content),
        controllers[0] if controllers else None,
        _shard(content),
        _deleting(content),
        str(content["metadata"].get("resourceVersion", "")) if content["kind"] == "Secret" else "",
    )


def _settled(content: Mapping[str, Any]) -> bool:
    seen = content.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= content["metadata"].get("generation", 0))


def _set(content: Mapping[str, Any]) -> SeenSet:
    templates = content["spec"]["volumeClaimTemplates"]
    version = content["metadata"].get("annotations", {}).get(names.RENDER_VERSION, "0")
    return SeenSet(
        _shard(content) or 0,
        _settled(content),
        content.get("status", {}).get("updateRevision", ""),
        int(version) if version.isdecimal() else 0,
        templates[0]["spec"]["resources"]["requests"]["storage"],
        _deleting(content),
        _copies(content["metadata"].get("annotations", {}).get(names.COPIES, ""), 0),
        templates[0]["metadata"].get("labels", {}).get(names.COPIES, ""),
        _image(content["spec"]["template"]),
        content["metadata"].get("annotations", {}).get(names.PROOF, ""),
    )


def _image(pod: Mapping[str, Any]) -> str:
    containers = pod.get("spec", {}).get("containers", [])
    return str(containers[0].get("image", "")) if containers else ""


def _candidate(content: Mapping[str, Any]) -> SeenCandidate:
    metadata, status = content["metadata"], content.get("status", {})
    ends = [
        one["state"]["terminated"]
        for one in status.get("containerStatuses", [])
        if "terminated" in one.get("state", {})
    ]
    end = ends[0] if ends else {}
    code = f"exit code {end['exitCode']}" if "exitCode" in end else ""
    said = (status.get("reason", ""), status.get("message", ""), code, end.get("reason", ""))
    return SeenCandidate(
        _name(content),
        metadata["uid"],
        _shard(content) or 0,
        _image(content),
        (metadata.get("annotations") or {}).get(names.QUESTION, ""),
        status.get("phase", "Pending"),
        decode_verdict(end.get("message", "")),
        end.get("finishedAt") or metadata.get("creationTimestamp", ""),
        ", ".join(one for one in said if one),
        _deleting(content),
    )


def _filling(content: Mapping[str, Any]) -> tuple[bool, str, Filled | None]:
    """Whether the container that fills a volume has not succeeded yet, why not, and what it has
    said."""
    for one in content.get("status", {}).get("initContainerStatuses", []):
        if one["name"] != names.FILLER:
            continue
        last = one.get("lastState", {}).get("terminated")
        end = one.get("state", {}).get("terminated") or last
        if end is None:
            return True, "", None
        if end.get("exitCode") == 0:
            return False, "", decode_filled(end.get("message", ""))
        why = end.get("message", "").strip() or end.get("reason", "")
        return True, f"exit code {end.get('exitCode')}: {why}", None
    return False, "", None


def _pod(content: Mapping[str, Any]) -> SeenPod:
    conditions = content.get("status", {}).get("conditions", [])
    filling, not_filled, filled = _filling(content)
    return SeenPod(
        _name(content),
        content["metadata"]["uid"],
        _shard(content) or 0,
        _label(content, "controller-revision-hash"),
        any(one["type"] == "Ready" and one["status"] == "True" for one in conditions),
        content["metadata"].get("creationTimestamp", ""),
        _deleting(content),
        _label(content, names.ROLE),
        bool(_label(content, names.REPLICATED)),
        filling,
        not_filled,
        filled,
    )


def _claim(content: Mapping[str, Any]) -> SeenClaim:
    return SeenClaim(
        _name(content),
        _shard(content) or 0,
        _label(content, names.ENGINE_UID),
        content["spec"]["resources"]["requests"]["storage"],
        _deleting(content),
        _copies(_label(content, names.COPIES)),
    )


def _deployment(content: Mapping[str, Any]) -> SeenDeployment:
    status = content.get("status", {})
    return SeenDeployment(
        _name(content),
        _label(content, names.COMPONENT),
        _settled(content),
        content["spec"].get("replicas", 1),
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _image(content["spec"].get("template", {})),
    )


def _map(content: Mapping[str, Any]) -> SeenMap:
    uid = _label(content, names.ENGINE_UID)
    version = str(content["metadata"].get("resourceVersion", ""))
    try:
        shard_map = ShardMap.decode(content.get("data", {})[names.MAP_KEY].encode())
    except (MapRefused, KeyError) as error:
        return SeenMap(uid, None, str(error), version)
    return SeenMap(uid, shard_map, version=version)
