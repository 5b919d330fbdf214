"""The CRDs of `crds/`, and a walk over every field of their schemas."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

ROOT: Final = Path(__file__).parents[2]
GROUP: Final = "ultraengine.io"
FILES: Final = {
    "UltraEngine": "ultraengines.yaml",
    "Shard": "shards.yaml",
    "Snapshot": "snapshots.yaml",
}

Path_ = tuple[str, ...]
"""Names of fields from the root; ``[]`` is an item of a list, ``{}`` a value of a map."""


class Field(msgspec.Struct, frozen=True):
    """One place in the schema of a kind."""

    kind: str
    path: Path_
    schema: dict[str, Any]

    @property
    def name(self) -> str:
        """As people write it: ``spec.projections[].name``."""
        return ".".join(self.path).replace(".[]", "[]").replace(".{}", "{}")


class Rule(msgspec.Struct, frozen=True):
    """One rule in CEL and where it stands."""

    kind: str
    path: Path_
    rule: str
    message: str


def crd(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "crds" / FILES[kind]).read_text())
    return found


def version(kind: str) -> dict[str, Any]:
    """Its one version."""
    (only,) = crd(kind)["spec"]["versions"]
    found: dict[str, Any] = only
    return found


def fields(kind: str) -> list[Field]:
    """Every field of a kind, the root first; metadata is the API server's own."""
    return list(_walk(kind, (), version(kind)["schema"]["openAPIV3Schema"]))


def _walk(kind: str, path: Path_, schema: dict[str, Any]) -> Iterator[Field]:
    yield Field(kind, path, schema)
    children: Mapping[str, dict[str, Any]] = schema.get("properties", {})
    for name, child in children.items():
        yield from _walk(kind, (*path, name), child)
    if "items" in schema:
        yield from _walk(kind, (*path, "[]"), schema["items"])
    if "additionalProperties" in schema:
        yield from _walk(kind, (*path, "{}"), schema["additionalProperties"])


def rules(kind: str) -> list[Rule]:
    """Every rule of a kind."""
    return [
        Rule(kind, field.path, one["rule"], one["message"])
        for field in fields(kind)
        for one in field.schema.get("x-kubernetes-validations", ())
    ]
