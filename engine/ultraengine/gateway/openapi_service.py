"""The parts of the OpenAPI document that do not depend on domains: service and admin paths."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from ultraengine.edge.codec import JSON_TYPE, MSGPACK_TYPE
from ultraengine.edge.openapi import Schema, both, parameter, problems, public
from ultraengine.feed.wire import MEDIA_TYPE as FEED_TYPE
from ultraengine.gateway.admin import Done, Operation
from ultraengine.model.ids import NAME_PATTERN

PLAIN_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "NOT_ACCEPTABLE", "OVERLOADED",
    "SHARD_UNAVAILABLE",
)  # fmt: skip
_ADMIN_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE", "NOT_ACCEPTABLE", "OVERLOADED", "SHARD_UNAVAILABLE", "PAUSED",
    "DRAINING", "READ_ONLY",
)  # fmt: skip
_FEED_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "NOT_ACCEPTABLE", "TOO_OLD",
    "TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "OVERLOADED", "SHARD_UNAVAILABLE", "DRAINING",
)  # fmt: skip
_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_FEED_ABOUT: Final = """\
The committed groups of one shard as they are stored, from the one that holds `from` on, for
ever: pages of `application/vnd.ultra.feed`, of which an empty one comes every second while
nothing happens. It carries the commands of all tenants and needs the scope `feed` or `admin`.
When it is cut, ask again from the offset behind the last group. See `docs/feed.md`."""
_STREAM_ABOUT: Final = """\
WebSocket with the subprotocol `ultra.v1.json` or `ultra.v1.msgpack`. Objects with `type` are
commands, one or an array per frame; replies carry their ids and come in order. Objects with
`op` are protocol: `hello`, `credit`, `subscribe`, `subscribed`, `event`, `position`, `error`,
`goaway`. The engine's `hello` says how many commands may be unanswered; one more closes the
stream with 4008."""


def data_paths(*, feed: bool) -> Schema:
    """What the data API has besides commands and reads."""
    limits = {"type": "object", "description": "Every limit by name, and the dedupe floor."}
    return {
        "/v1/limits": {"get": _plain("getLimits", "Limits in force", both(limits))},
        "/v1/stream": {"get": _stream()},
        **(_feed_paths() if feed else {}),
    }


def health_paths() -> Schema:
    """What every listener answers."""
    health = {
        "type": "object",
        "required": ["alive", "loop_age_s"],
        "properties": {
            "alive": {"type": "boolean"},
            "loop_age_s": {"type": "number"},
            "role": {"type": "string"},
        },
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
            "get": {
                **public("getReady", "Does the engine serve", {JSON_TYPE: {"schema": ready}}),
                "parameters": [
                    parameter(
                        "role",
                        "query",
                        {"enum": ["leader", "any"], "default": "leader"},
                        description="`any`: a copy that follows is ready, too.",
                    )
                ],
            }
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


def _feed_paths() -> Schema:
    """The feed and its consumer slots."""
    shard = parameter("shard", "query", _NUMBER, description="May be left out where there is one.")
    slot = {
        "type": "object",
        "required": ["shard", "name", "offset"],
        "properties": {"shard": _NUMBER, "name": {"type": "string"}, "offset": _NUMBER},
    }
    dropped = {
        "type": "object",
        "required": ["shard", "name"],
        "properties": {"shard": _NUMBER, "name": {"type": "string"}},
    }
    confirmation = {
        "type": "object",
        "required": ["offset"],
        "additionalProperties": False,
        "properties": {"offset": _NUMBER},
    }
    name = parameter("name", "path", {"type": "string", "pattern": NAME_PATTERN})
    follow = _feed(
        "followFeed",
        "Stored groups of one shard, without an end",
        {FEED_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    )
    follow["description"] = _FEED_ABOUT
    start = parameter("from", "query", _NUMBER, description="Offset to begin with; 0 by default.")
    read = parameter(
        "read",
        "query",
        {"type": "string", "enum": ["leader", "follower"], "default": "leader"},
        description="`follower`: from a copy that follows, where there is one that keeps up; it "
        "has the same groups, perhaps a moment later.",
    )
    return {
        "/v1/feed": {"get": {**follow, "parameters": [shard, start, read]}},
        "/v1/feed/shards": {
            "get": _feed("getFeedShards", "Shards that have a feed", both(_list("shards", _NUMBER)))
        },
        "/v1/feed/consumers": {
            "get": {
                **_feed("getConsumers", "Consumer slots", both(_list("consumers", slot))),
                "parameters": [shard],
            }
        },
        "/v1/feed/consumers/{name}": {
            "put": {
                **_feed("confirm", "Move a consumer slot on, or make it", both(slot)),
                "parameters": [name, shard],
                "requestBody": {"required": True, "content": both(confirmation)},
            },
            "delete": {
                **_feed("forgetConsumer", "Give a consumer slot up", both(dropped)),
                "parameters": [name, shard],
            },
        },
    }


def _list(name: str, of: Schema) -> Schema:
    items = {"type": "array", "items": of}
    return {"type": "object", "required": [name], "properties": {name: items}}


def _feed(name: str, summary: str, content: Schema) -> Schema:
    return {
        "operationId": name,
        "tags": ["Feed"],
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": content},
            **problems(_FEED_CODES, "ProblemDocument"),
        },
    }


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
