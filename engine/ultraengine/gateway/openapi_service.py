"""The parts of the OpenAPI document that do not depend on domains: service and admin paths."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from ultraengine.edge.codec import JSON_TYPE, MSGPACK_TYPE
from ultraengine.edge.openapi import Schema, both, parameter, problems, public
from ultraengine.gateway.admin import Done, Operation

PLAIN_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "NOT_ACCEPTABLE", "OVERLOADED",
    "SHARD_UNAVAILABLE",
)  # fmt: skip
_ADMIN_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE", "NOT_ACCEPTABLE", "OVERLOADED", "SHARD_UNAVAILABLE", "PAUSED",
    "DRAINING", "READ_ONLY",
)  # fmt: skip
_STREAM_ABOUT: Final = """\
WebSocket with the subprotocol `ultra.v1.json` or `ultra.v1.msgpack`. Objects with `type` are
commands, one or an array per frame; replies carry their ids and come in order. Objects with
`op` are protocol: `hello`, `credit`, `subscribe`, `event`, `error`, `goaway`. The engine's
`hello` says how many commands may be unanswered; one more closes the stream with 4008."""


def data_paths() -> Schema:
    """What the data API has besides commands and reads."""
    limits = {"type": "object", "description": "Every limit by name, and the dedupe floor."}
    return {
        "/v1/limits": {"get": _plain("getLimits", "Limits in force", both(limits))},
        "/v1/stream": {"get": _stream()},
    }


def health_paths() -> Schema:
    """What every listener answers."""
    health = {
        "type": "object",
        "required": ["alive", "loop_age_s"],
        "properties": {"alive": {"type": "boolean"}, "loop_age_s": {"type": "number"}},
    }
    ready = {
        "type": "object",
        "required": ["ready", "state", "role", "epoch"],
        "properties": {
            "ready": {"type": "boolean"},
            "state": {"type": "string"},
            "role": {"type": "string"},
            "epoch": {"type": "integer"},
        },
    }
    return {
        "/healthz": {
            "get": public("getHealth", "Is the process alive", {JSON_TYPE: {"schema": health}})
        },
        "/readyz": {
            "get": public("getReady", "Does the engine serve", {JSON_TYPE: {"schema": ready}})
        },
        "/openapi.json": {
            "get": public(
                "getOpenApi", "This document", {JSON_TYPE: {"schema": {"type": "object"}}}
            )
        },
    }


def _plain(name: str, summary: str, content: Schema, tag: str = "Engine") -> Schema:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": content},
            **problems(PLAIN_CODES, "ProblemDocument"),
        },
    }


def admin_paths(operations: Sequence[Operation], schema: Callable[[Any], Schema]) -> Schema:
    """The admin API, as far as the engine offers it."""
    any_object = {JSON_TYPE: {"schema": {"type": "object"}}, MSGPACK_TYPE: {"schema": {}}}
    paths: Schema = {
        "/metrics": {
            "get": public(
                "getMetrics",
                "Prometheus metrics",
                {"text/plain": {"schema": {"type": "string"}}},
            )
        },
        "/admin/v1/status": {
            "get": _plain("getStatus", "Status of the engine", any_object, "Admin")
        },
        "/admin/v1/limits": {
            "get": _plain("getAdminLimits", "Limits in force", any_object, "Admin")
        },
    }
    for operation in operations:
        paths[f"/admin/v1/{operation.name}"] = {
            "post": {
                "operationId": operation.name.replace("-", "_"),
                "tags": ["Admin"],
                "summary": operation.title,
                "description": operation.summary,
                "requestBody": {
                    "required": False,
                    "content": both(schema(operation.body)),
                },
                "responses": {
                    "200": {
                        "description": "Done",
                        "content": {JSON_TYPE: {"schema": schema(Done)}},
                    },
                    **problems(_ADMIN_CODES, "ProblemDocument"),
                },
            }
        }
    return paths


def _stream() -> Schema:
    return {
        "operationId": "openStream",
        "tags": ["Commands"],
        "summary": "Commands and events over a WebSocket",
        "description": _STREAM_ABOUT,
        "parameters": [
            {
                **parameter(
                    "Sec-WebSocket-Protocol",
                    "header",
                    {"enum": ["ultra.v1.json", "ultra.v1.msgpack"]},
                ),
                "required": True,
            }
        ],
        "responses": {
            "101": {"description": "The stream is open"},
            **problems(
                ("MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "OVERLOADED", "DRAINING"),
                "ProblemDocument",
            ),
        },
    }
