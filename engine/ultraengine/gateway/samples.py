"""Example values for the OpenAPI document: a domain's own, or made from the schema.

A made example is shown only when the handler takes it, so that every example in the
document can be sent as it is.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ultraengine.execution.registry import Handler
from ultraengine.model.errors import EngineError

_DEPTH_MAX: Final = 8
_BY_FORMAT: Final = {"date-time": "2026-11-20T10:00:00Z", "date": "2026-11-20"}


def sample(schema: Mapping[str, Any], components: Mapping[str, Any], depth: int = 0) -> Any:
    """A small value of a JSON schema: required members only, first alternatives."""
    if depth > _DEPTH_MAX:
        return None
    reference = schema.get("$ref")
    if reference is not None:
        return sample(components[reference.rpartition("/")[2]], components, depth + 1)
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    for several in ("anyOf", "oneOf"):
        if schema.get(several):
            return sample(schema[several][0], components, depth + 1)
    return _of_type(schema, components, depth)


def _of_type(schema: Mapping[str, Any], components: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object":
        required = schema.get("required", ())
        return {
            name: sample(member, components, depth + 1)
            for name, member in schema.get("properties", {}).items()
            if name in required
        }
    if kind == "array":
        item = schema.get("items")
        wanted = max(1, schema.get("minItems", 0))
        return [sample(item, components, depth + 1)] * wanted if item else []
    if kind == "string":
        return _BY_FORMAT.get(schema.get("format", ""), "example-1")
    if kind in {"integer", "number"}:
        return max(1, schema.get("minimum", 1))
    return kind == "boolean" or None


def example_data(
    handler: Handler, schema: Mapping[str, Any], components: Mapping[str, Any]
) -> Any | None:
    """Example ``data`` of a command: the domain's own (its mapping ``examples``, by command
    name), else a made one that the handler takes; None when there is neither."""
    own: Mapping[str, Any] = getattr(handler.domain, "examples", {})
    if handler.spec.name in own:
        return own[handler.spec.name]
    made = sample(schema, components)
    try:
        payload = handler.decode_json(msgspec.json.encode(made))
        if handler.prepare is not None:
            handler.prepare(payload)
    except (EngineError, msgspec.ValidationError):
        return None
    return made
