"""`Cluster` in memory: resourceVersions, uids, generations, a status subresource, finalizers,
owners, and the part of server-side apply that the operator relies on.

Field ownership is kept per leaf of mappings; lists belong to who applied them last, but for the
set of finalizers. `controllers` does what the controllers of a cluster would do for these kinds.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ultraengine.model.candidate import Verdict
from ultraengine_operator import names
from ultraengine_operator.cluster import KINDS, Content, Kind, Refused

Path = tuple[str, ...]
CREATED = "2026-01-01T00:00:00Z"


def leaves(content: Mapping[str, Any], at: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key), value


def put(content: dict[str, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        content = content.setdefault(key, {})
    content[path[-1]] = value


def cut(content: dict[str, Any], path: Path) -> None:
    """Remove a leaf, and the mappings above it that have nothing else."""
    head, rest = path[0], path[1:]
    if not rest:
        content.pop(head, None)
    elif head in content:
        cut(content[head], rest)
        if not content[head]:
            del content[head]


IDENTITY = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"),
            ("metadata", "uid"), ("metadata", "resourceVersion")}  # fmt: skip
FINALIZERS = ("metadata", "finalizers")


class MemoryCluster:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Content] = {}
        self._owners: dict[tuple[str, str, str], dict[Path, str]] = {}
        self._version = 0
        self.writes = 0
        self.before_write: Callable[[], None] = lambda: None
        self.now = CREATED
        self.judge: Callable[[Content], Verdict | None] = let_through
        """What a candidate says at its end; None while it still runs."""

    def _key(self, content: Mapping[str, Any]) -> tuple[str, str, str]:
        return (content["kind"], content["metadata"]["namespace"], content["metadata"]["name"])

    def _store(self, content: Content) -> Content:
        key = self._key(content)
        before = self.objects.get(key)
        meta = content["metadata"]
        if before is not None:
            # What a server keeps of an object that is replaced by one that does not say it.
            for name in ("uid", "generation", "creationTimestamp"):
                meta.setdefault(name, before["metadata"][name])
            same = {k: v for k, v in before.items() if k != "metadata"} == {
                k: v for k, v in content.items() if k != "metadata"
            }
            drop = ("resourceVersion", "generation")
            if same and {k: v for k, v in meta.items() if k not in drop} == {
                k: v for k, v in before["metadata"].items() if k not in drop
            }:
                return copy.deepcopy(before)
            if before.get("spec") != content.get("spec"):
                meta["generation"] += 1
        else:
            meta.update(generation=1, creationTimestamp=self.now)
            meta["uid"] = f"uid-{self._version + 1}"
        self._version += 1
        self.writes += 1
        meta["resourceVersion"] = str(self._version)
        self.objects[key] = content
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._remove(key)
        return copy.deepcopy(content)

    def _remove(self, key: tuple[str, str, str]) -> None:
        uid = self.objects.pop(key)["metadata"]["uid"]
        self._owners.pop(key, None)
        for other, one in list(self.objects.items()):
            owners = one["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners) and other in self.objects:
                self._remove(other)

    async def list(self, kind: Kind, selector: str) -> Sequence[Content]:
        label, _, value = selector.partition("=")
        return [
            copy.deepcopy(one)
            for key, one in sorted(self.objects.items())
            if key[0] == kind.name
            and (
                not label
                or (
                    label in one["metadata"].get("labels", {})
                    and value in ("", one["metadata"]["labels"][label])
                )
            )
        ]

    async def get(self, kind: Kind, namespace: str, name: str) -> Content | None:
        return copy.deepcopy(self.objects.get((kind.name, namespace, name)))

    async def create(self, kind: Kind, content: Content) -> Content:
        self.before_write()
        if self._key(content) in self.objects:
            raise Refused(409, "AlreadyExists")
        return self._store(copy.deepcopy(content))

    async def replace(self, kind: Kind, content: Content) -> Content:
        self.before_write()
        found = self.objects.get(self._key(content))
        if found is None:
            raise Refused(404, "NotFound")
        if found["metadata"]["resourceVersion"] != content["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict")
        return self._store(copy.deepcopy(content))

    async def apply(
        self, kind: Kind, content: Content, *, manager: str, subresource: str = ""
    ) -> Content:
        self.before_write()
        key = self._key(content)
        found = copy.deepcopy(self.objects.get(key))
        uid = content["metadata"].get("uid")
        if found is None and (subresource or uid):
            raise Refused(404 if subresource else 409, "NotFound")
        if found is not None and not subresource and uid not in (None, found["metadata"]["uid"]):
            raise Refused(409, "uid mismatch")
        version = content["metadata"].get("resourceVersion")
        if found is not None and version not in (None, found["metadata"]["resourceVersion"]):
            raise Refused(409, "the object has been modified")
        found = found or {"metadata": {}}
        owners = self._owners.setdefault(key, {})
        wished = {path: value for path, value in leaves(content) if path not in IDENTITY}
        at = ("status",) if subresource else ()
        for path, value in wished.items():
            owner = owners.get(path)
            current = dict(leaves(found)).get(path)
            if owner not in (None, manager) and current != value and path != FINALIZERS:
                raise Refused(409, f"conflict with {owner!r}: .{'.'.join(path)}")
        for path in [path for path, owner in owners.items() if owner == manager]:
            if path not in wished:
                cut(found, path)
                del owners[path]
        for path in IDENTITY:
            value = dict(leaves(content)).get(path)
            if value is not None:
                put(found, path, value)
        for path, value in wished.items():
            if path[: len(at)] == at:
                if path[0] == "status" and found.get("status") is None:
                    found["status"] = {}
                put(found, path, copy.deepcopy(value))
                owners[path] = manager
        return self._store(found)

    async def merge(
        self, kind: Kind, namespace: str, name: str, content: Mapping[str, Any]
    ) -> Content:
        self.before_write()
        found = copy.deepcopy(self.objects.get((kind.name, namespace, name)))
        if found is None:
            raise Refused(404, "NotFound")
        for field, status in (("resourceVersion", 409), ("uid", 422)):
            asked = content.get("metadata", {}).get(field)
            if asked not in (None, found["metadata"][field]):
                raise Refused(status, f"{field} is another")
        for path, value in leaves(content):
            put(found, path, value)
            self._owners.setdefault((kind.name, namespace, name), {})[path] = "patch"
        return self._store(found)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str | None) -> None:
        self.before_write()
        key = (kind.name, namespace, name)
        found = copy.deepcopy(self.objects.get(key))
        if found is None or uid not in (None, found["metadata"]["uid"]):
            return
        self.writes += 1
        if found["metadata"].get("finalizers"):
            found["metadata"]["deletionTimestamp"] = self.now
            self._store(found)
        else:
            self._remove(key)

    def controllers(self, *, broken: Callable[[str], bool] = lambda _image: False) -> None:
        """One round of what StatefulSet and Deployment controllers would do."""
        for key, one in list(self.objects.items()):
            status: dict[str, Any] = {"observedGeneration": one["metadata"]["generation"]}
            if key[0] == "StatefulSet":
                template = one["spec"]["template"]
                revision = str(hash_of(template))
                self._pods(key[1], key[2], one, revision, broken)
                status["updateRevision"] = revision
            elif key[0] == "Pod" and one["metadata"]["labels"][names.COMPONENT] == "candidate":
                self._decide_again(one)
                continue
            elif key[0] == "Deployment":
                count = one["spec"].get("replicas", 1)
                status.update(updatedReplicas=count, availableReplicas=count)
            else:
                continue
            changed = copy.deepcopy(one)
            changed["status"] = status
            self._store(changed)

    def _decide_again(self, pod: Content) -> None:
        """A candidate ends once, with what `judge` says."""
        verdict = self.judge(pod)
        if verdict is None or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        end = {
            "exitCode": verdict.exit_code, "finishedAt": self.now,
            "message": verdict.encode().decode(),
        }  # fmt: skip
        changed = copy.deepcopy(pod)
        changed["status"] = {
            "phase": "Failed" if verdict.exit_code else "Succeeded",
            "containerStatuses": [{"state": {"terminated": end}}],
        }
        self._store(changed)

    def _pods(
        self,
        namespace: str,
        name: str,
        owner: Content,
        revision: str,
        broken: Callable[[str], bool],
    ) -> None:
        for number in range(owner["spec"]["replicas"]):
            self._pod(namespace, f"{name}-{number}", owner, revision, broken)

    def _pod(
        self,
        namespace: str,
        pod: str,
        owner: Content,
        revision: str,
        broken: Callable[[str], bool],
    ) -> None:
        labels = dict(owner["spec"]["template"]["metadata"]["labels"])
        claim = copy.deepcopy(owner["spec"]["volumeClaimTemplates"][0])
        claim["metadata"].update(name=f"data-{pod}", namespace=namespace)
        if self._key(claim) not in self.objects:
            self._store(claim)
        if ("Pod", namespace, pod) in self.objects:
            return
        ready = not broken(owner["spec"]["template"]["spec"]["containers"][0]["image"])
        self._store(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": pod,
                    "namespace": namespace,
                    "labels": {**labels, "controller-revision-hash": revision},
                    "ownerReferences": [{"uid": owner["metadata"]["uid"], "controller": True}],
                },
                "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
            }
        )


def let_through(pod: Content) -> Verdict | None:
    """A build that decides alike and writes the same formats."""
    shard = int(pod["metadata"]["labels"][names.SHARD])
    return Verdict(
        verdict="ok", shard=shard, offset=40 + shard, compared=9, state_hash="cafe",
        may_return=True,
    )  # fmt: skip


def hash_of(content: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(content, order="sorted"), digest_size=5).hexdigest()


class SilentShards:
    """`Shards` whose pods all answer the same."""

    async def ask(
        self, namespace: str, engine: str, shard: int, pod: str | None = None
    ) -> Content | None:
        return {"state": "serving", "epoch": 7, "applied_end": 42}


async def engine(
    cluster: MemoryCluster, *, name: str = "shop", labels: dict[str, str] | None = None, **spec: Any
) -> Content:
    """Apply an UltraEngine as a person would."""
    return await cluster.apply(
        KINDS["UltraEngine"],
        {
            "apiVersion": names.API_VERSION,
            "kind": "UltraEngine",
            "metadata": {"name": name, "namespace": "default", "labels": labels or {"team": "a"}},
            "spec": {"image": "ultraengine:1", "replicasPerShard": 1, **spec},
        },
        manager="person",
    )
