"""What was seen last of every object, by engine; fed by lists, watches and answers to writes.

An older version of an object never replaces a newer one. An object that a list does not show
any more is forgotten, because a watch that broke tells nothing of what went meanwhile.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ultraengine_operator import names
from ultraengine_operator.cluster import MADE_BY_PEOPLE, Content
from ultraengine_operator.observed import Ref

CERTIFICATES = ".crt"
"""Keys of a Secret whose content is shown to whoever connects: no secret."""
Key = tuple[str, str]
"""Namespace and name of an engine."""


def key_of(content: Mapping[str, Any]) -> Key | None:
    """The engine that an object belongs to; None when to none."""
    metadata = content["metadata"]
    if content["kind"] == "UltraEngine":
        return (metadata["namespace"], metadata["name"])
    if content["kind"] == "Snapshot":
        return (metadata["namespace"], content["spec"]["engine"])
    engine = (metadata.get("labels") or {}).get(names.ENGINE)
    return (metadata["namespace"], engine) if engine else None


def _version(content: Mapping[str, Any]) -> int:
    text = str(content["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0


class Cache:
    """Objects by engine and Ref. `managedFields` and what is secret of Secrets are not kept."""

    def __init__(self) -> None:
        self._objects: dict[Key, dict[Ref, Content]] = {}

    def known(self) -> tuple[Key, ...]:
        """Engines of which anything was seen."""
        return tuple(sorted(self._objects))

    def engine(self, key: Key) -> Content | None:
        """The UltraEngine as it was seen last."""
        return self._objects.get(key, {}).get(Ref("UltraEngine", key[1]))

    def shard_objects(self, key: Key) -> dict[str, Content]:
        """The Shards of an engine by name."""
        found = self._objects.get(key, {})
        return {ref.name: one for ref, one in found.items() if ref.kind == "Shard"}

    def snapshots(self, key: Key) -> tuple[Content, ...]:
        """The Snapshots that name an engine, by name, whether it is there or not."""
        found = self._objects.get(key, {})
        return tuple(found[ref] for ref in sorted(found) if ref.kind == "Snapshot")

    def children(self, key: Key) -> dict[Ref, Content]:
        """Everything of an engine but itself and what people have asked of it."""
        found = self._objects.get(key, {})
        return {ref: one for ref, one in found.items() if ref.kind not in MADE_BY_PEOPLE}

    def put(self, content: Mapping[str, Any]) -> Key | None:
        """Take in an object; the engine whose world it changed, None when it changed none."""
        key = key_of(content)
        if key is None:
            return None
        ref = Ref(content["kind"], content["metadata"]["name"])
        before = self._objects.get(key, {}).get(ref)
        same_one = before is not None and _uid(before) == _uid(content)
        if before is not None and same_one and _version(before) >= _version(content):
            return None
        self._objects.setdefault(key, {})[ref] = slim(content)
        return key

    def forget(self, key: Key, ref: Ref) -> None:
        """Forget an object that is not there when asked for by name."""
        self._objects.get(key, {}).pop(ref, None)

    def drop(self, content: Mapping[str, Any]) -> Key | None:
        """Forget an object that was deleted, unless it was made anew since."""
        key = key_of(content)
        if key is None:
            return None
        ref = Ref(content["kind"], content["metadata"]["name"])
        before = self._objects.get(key, {}).get(ref)
        if before is None or _uid(before) != _uid(content):
            return None
        del self._objects[key][ref]
        if not self._objects[key]:
            del self._objects[key]
        return key

    def relist(self, kind: str, contents: Iterable[Mapping[str, Any]]) -> set[Key]:
        """Take in a whole list of a kind; the engines whose world it changed."""
        listed = list(contents)
        there = {(key_of(one), one["metadata"]["name"]) for one in listed}
        gone = [
            one
            for key, found in self._objects.items()
            for ref, one in found.items()
            if ref.kind == kind and (key, ref.name) not in there
        ]
        changed = [self.drop(one) for one in gone] + [self.put(one) for one in listed]
        return {key for key in changed if key is not None}


def _uid(content: Mapping[str, Any]) -> str:
    return str(content["metadata"].get("uid", ""))


def slim(content: Mapping[str, Any]) -> Content:
    """The object without what no decision needs, and without secrets."""
    kept: Content = msgspec.json.decode(msgspec.json.encode(dict(content)))
    kept["metadata"].pop("managedFields", None)
    if kept["kind"] == "Secret":
        kept.pop("stringData", None)
        data = kept.pop("data", None) or {}
        public = {key: data[key] for key in data if key.endswith(CERTIFICATES)}
        if public:
            kept["data"] = public
    return kept
