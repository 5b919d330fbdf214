"""The page `docs/kubernetes/fields.md`, made of the CRDs by `make docs`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FILES = ("ultraengines.yaml", "shards.yaml", "snapshots.yaml")
LIMITS = {
    "minimum": "at least {}", "maximum": "at most {}", "minLength": "at least {} characters",
    "maxLength": "at most {} characters", "minItems": "at least {} items",
    "maxItems": "at most {} items", "maxProperties": "at most {} entries", "pattern": "`{}`",
}  # fmt: skip
HEAD = """\
# Fields of UltraEngine, Shard and Snapshot

Made of `crds/` by `make docs`; `kubectl explain ue.spec` says the same. API version
`ultraengine.io/v1alpha1`, for Kubernetes 1.30 and newer. Rules are kept by the API server: an
object that breaks one is not stored, and the answer is the text that is given here.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_kind(yaml.safe_load((ROOT / "crds" / one).read_text())) for one in FILES)


def _kind(crd: dict[str, Any]) -> str:
    names = crd["spec"]["names"]
    (version,) = crd["spec"]["versions"]
    root = version["schema"]["openAPIV3Schema"]
    lines = [
        "", f"## {names['kind']}", "", root["description"], "",
        f"`kubectl get {names['shortNames'][0]}`; category `{names['categories'][0]}`.",
    ]  # fmt: skip
    for part in ("spec", "status"):
        lines += ["", f"### {names['kind']}: {part}", "", root["properties"][part]["description"]]
        lines += ["", "| field | type | default | what it is | limits |", "| - | - | - | - | - |"]
        lines += list(_rows(root["properties"][part], part))
    rules = list(_rules(root, ""))
    if rules:
        lines += ["", f"### {names['kind']}: rules", "", "| where | what is said | rule |"]
        lines += ["| - | - | - |", *rules]
    return "\n".join(lines) + "\n"


def _children(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    required = schema.get("required", ())
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}".lstrip("."), child, name in required
    if "items" in schema:
        yield f"{path}[]", schema["items"], False
    if "additionalProperties" in schema:
        yield f"{path}{{}}", schema["additionalProperties"], False


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child, required in _children(schema, path):
        yield (
            f"| `{name}` | {_type(child)}{', required' if required else ''} | {_default(child)} "
            f"| {_cell(child['description'])} | {_cell(_limits(child))} |"
        )
        yield from _rows(child, name)


def _type(schema: dict[str, Any]) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    keys = schema.get("x-kubernetes-list-map-keys")
    return f"{schema['type']} by {', '.join(keys)}" if keys else str(schema["type"])


def _default(schema: dict[str, Any]) -> str:
    if "default" not in schema:
        return ""
    text = yaml.dump(schema["default"], default_flow_style=True, width=1000)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _limits(schema: dict[str, Any]) -> str:
    found = [text.format(schema[word]) for word, text in LIMITS.items() if word in schema]
    if "enum" in schema:
        found.insert(0, "one of " + ", ".join(f"`{one}`" for one in schema["enum"]))
    return "; ".join(found)


def _rules(schema: dict[str, Any], path: str) -> Iterator[str]:
    for one in schema.get("x-kubernetes-validations", ()):
        yield f"| `{path or 'object'}` | {_cell(one['message'])} | `{_cell(one['rule'])}` |"
    for name, child, _ in _children(schema, path):
        yield from _rules(child, name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
