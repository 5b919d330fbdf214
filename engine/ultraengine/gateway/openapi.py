"""The OpenAPI 3.1 document, generated from the types that the handlers use.

Commands come from the domains' `CommandSpec`s, reads from their `QuerySpec`s, replies and
problems from the model, statuses from the table of problem codes.  A pure function of the
registry: the same domains give the same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ultraengine.edge.openapi import REFERENCE, Schema, both, clean, parameter, problems
from ultraengine.edge.problems import CommandProblem, ProblemDocument
from ultraengine.execution.registry import Handler, Registry
from ultraengine.gateway.admin import Done, Operation
from ultraengine.gateway.openapi_service import (
    PLAIN_CODES,
    admin_paths,
    data_paths,
    health_paths,
)
from ultraengine.gateway.reads import ReadRoutes, Route
from ultraengine.gateway.samples import example_data
from ultraengine.model.domain import QuerySpec
from ultraengine.model.errors import PROBLEMS
from ultraengine.model.ids import NAME_PATTERN
from ultraengine.model.limits import Limits
from ultraengine.model.reply import Reply

VERSION_MAX: Final = 2**63 - 1
_NAME: Final[Schema] = {"type": "string", "pattern": NAME_PATTERN}
_OFFSET: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": VERSION_MAX}
_COMMAND_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "UNKNOWN_TYPE", "NOT_ACCEPTABLE",
    "IDEMPOTENCY_MISMATCH", "TOO_OLD", "VERSION_MISMATCH", "TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE", "WRONG_SHARD", "REJECTED", "OVERLOADED", "QUOTA", "INTERNAL",
    "NOT_LEADER", "SHARD_UNAVAILABLE", "READ_ONLY", "PAUSED", "DRAINING", "OUTCOME_UNKNOWN",
)  # fmt: skip  # A list of words reads better in lines than in a column.
_BATCH_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_ACCEPTABLE", "TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE", "OVERLOADED", "QUOTA", "DRAINING",
)  # fmt: skip
_READ_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "NOT_ACCEPTABLE", "TOO_LARGE",
    "WRONG_SHARD", "OVERLOADED", "NOT_LEADER", "SHARD_UNAVAILABLE", "DRAINING", "WAIT_TIMEOUT",
)  # fmt: skip
_ABOUT: Final = """\
A durable, deterministic, in-memory engine: log first, memory second.

Send **commands**, which change something, one at a time, in batches or over a WebSocket
stream (`/v1/stream`); **read** from memory. A command is answered when it is durable and
executed. Its `id` is an idempotency key: sending the same command again returns the first
reply with `"duplicate": true`.

Every answer outside 2xx is a problem document (RFC 9457); branch on its `code`."""


class _Document:
    """Builds one document."""

    def __init__(self, registry: Registry, operations: Sequence[Operation]) -> None:
        self._registry = registry
        self._operations = operations
        self._routes = ReadRoutes(registry.domains).routes
        self._handlers = [handler for handler in registry.handlers_all if not handler.spec.tenants]
        types: list[Any] = [Reply, ProblemDocument, CommandProblem, Limits, Done]
        types += [handler.spec.data for handler in self._handlers]
        types += [route.spec.result for route in self._routes]
        types += [operation.body for operation in operations]
        schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
        names = {name: re.sub(r"[^A-Za-z0-9._-]+", "_", name) for name in components}
        self._names = names
        self.components: Schema = {
            names[name]: self._rename(clean(schema)) for name, schema in components.items()
        }
        renamed = [self._rename(schema) for schema in schemas]
        self._of_type: dict[int, Schema] = {
            id(kind): schema for kind, schema in zip(types, renamed, strict=True)
        }

    def _rename(self, node: Any) -> Any:
        """References follow their components' names."""
        if isinstance(node, dict):
            return {
                name: REFERENCE.format(name=self._names[member.rpartition("/")[2]])
                if name == "$ref"
                else self._rename(member)
                for name, member in node.items()
            }
        return [self._rename(member) for member in node] if isinstance(node, list) else node

    def schema(self, kind: Any) -> Schema:
        """The schema of a type that was given to the constructor."""
        return self._of_type[id(kind)]

    # --- commands --------------------------------------------------------------------------

    def add_commands(self) -> tuple[Schema, dict[str, Schema]]:
        """The schema of one command, with a component per type; and the examples by type."""
        examples: dict[str, Schema] = {}
        mapping: dict[str, str] = {}
        for handler in self._handlers:
            bare = handler.type.partition("@")[0]
            newest = self._registry.handler(bare, "") is handler
            name = bare if newest else handler.type.replace("@", "_v")
            kinds = [bare, handler.type] if newest else [handler.type]
            self.components[name] = self._command(handler, kinds)
            mapping |= dict.fromkeys(kinds, REFERENCE.format(name=name))
            data = example_data(handler, self.schema(handler.spec.data), self.components)
            if data is not None:
                command = {"id": "example-1", "type": kinds[0], "key": "book-1", "data": data}
                examples[name] = {"summary": handler.spec.summary or name, "value": command}
        alternatives = [{"$ref": reference} for reference in dict.fromkeys(mapping.values())]
        command = {
            "oneOf": alternatives,
            "discriminator": {"propertyName": "type", "mapping": mapping},
        }
        self.components["Command"] = command
        return {"$ref": REFERENCE.format(name="Command")}, examples

    def _command(self, handler: Handler, kinds: Sequence[str]) -> Schema:
        return {
            "title": kinds[0],
            "description": handler.spec.summary or f"The command {kinds[0]}.",
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "key", "data"],
            "properties": {
                "id": {
                    **_NAME,
                    "description": "Idempotency key, unique per (tenant, key); made by the "
                    "engine when absent.",
                },
                "type": {"enum": list(kinds)},
                "key": {**_NAME, "description": "Partition key: the aggregate."},
                "data": self.schema(handler.spec.data),
                "expected_version": {
                    **_OFFSET,
                    "description": "Version that the aggregate must have; 0 = must not exist.",
                },
                "issued_at": {
                    "anyOf": [{"type": "string", "format": "date-time"}, _OFFSET],
                    "description": "RFC 3339, or microseconds since the Unix epoch. Lets the "
                    "engine refuse what is older than its memory of ids.",
                },
                "correlation_id": {"type": "string", "minLength": 1, "maxLength": 256},
                "traceparent": {"type": "string", "description": "W3C Trace Context."},
            },
        }

    def command_paths(self) -> Schema:
        """The ways in for commands."""
        command, examples = self.add_commands()
        reply = self.schema(Reply)
        return {
            "/v1/commands": {"post": self._single(command, examples, reply)},
            "/v1/commands:batch": {"post": self._batch(command, examples, reply)},
            "/v1/commands/{id}": {"get": self._outcome(reply)},
        }

    @staticmethod
    def _single(command: Schema, examples: dict[str, Schema], reply: Schema) -> Schema:
        accepted = {"id": "example-1", "outcome": "accepted", "offset": 41, "version": 8}
        async_body = {
            "type": "object",
            "properties": {
                "id": _NAME,
                "location": {"type": "string"},
                "shard": {"type": ["integer", "null"]},
                "epoch": {"type": ["integer", "null"]},
                "offset": {"type": ["integer", "null"]},
                "duplicate": {"type": "boolean"},
                "durable": {"type": ["object", "null"]},
            },
            "required": ["id", "location"],
        }
        return {
            "operationId": "sendCommand",
            "tags": ["Commands"],
            "summary": "Send one command",
            "description": "Answered when the command is durable and executed. With "
            "`Prefer: respond-async` the answer is 202 and names where the outcome is.",
            "parameters": [
                parameter(
                    "Idempotency-Key",
                    "header",
                    _NAME,
                    description="The same as the member `id`; both and different: 400.",
                ),
                parameter(
                    "If-Match",
                    "header",
                    {"type": "string", "pattern": '^"(0|[1-9][0-9]{0,17})"$'},
                    description='The same as `expected_version`, as `"7"`.',
                ),
                parameter("Prefer", "header", {"type": "string"}, example="respond-async"),
                parameter("traceparent", "header", {"type": "string"}),
            ],
            "requestBody": {"required": True, "content": both(command, examples=examples)},
            "responses": {
                "200": {
                    "description": "Accepted",
                    "content": both(reply, example=accepted),
                    "links": {
                        "outcome": {
                            "operationId": "getOutcome",
                            "parameters": {
                                "id": "$response.body#/id",
                                "key": "$request.body#/key",
                            },
                        }
                    },
                },
                "202": {
                    "description": "Durable; the outcome is at `Location`",
                    "headers": {"Location": {"schema": {"type": "string"}}},
                    "content": both(async_body),
                },
                **problems(_COMMAND_CODES, "CommandProblem"),
            },
        }

    def _batch(self, command: Schema, examples: dict[str, Schema], reply: Schema) -> Schema:
        return {
            "operationId": "sendBatch",
            "tags": ["Commands"],
            "summary": "Send many commands",
            "description": "An array of commands; an array of replies in the same order. Each is "
            "decided by itself: a batch is not atomic, and bad elements are refused singly.",
            "requestBody": {
                "required": True,
                "content": both(
                    {"type": "array", "items": command, "maxItems": self._batch_max()},
                    examples={
                        name: {"summary": item["summary"], "value": [item["value"]]}
                        for name, item in examples.items()
                    },
                ),
            },
            "responses": {
                "200": {
                    "description": "One reply per command",
                    "content": both({"type": "array", "items": reply}),
                },
                **problems(_BATCH_CODES, "ProblemDocument"),
            },
        }

    def _batch_max(self) -> int:
        return self._registry.limits.commands_per_batch_max

    def _outcome(self, reply: Schema) -> Schema:
        answer = {
            "type": "object",
            "required": ["id", "key", "state", "reply", "dedup_floor"],
            "properties": {
                "id": _NAME,
                "key": {"type": ["string", "null"]},
                "state": {"enum": ["done", "in_flight", "unknown", "forgotten"]},
                "reply": {"anyOf": [reply, {"type": "null"}]},
                "dedup_floor": {"type": "integer"},
            },
        }
        return {
            "operationId": "getOutcome",
            "tags": ["Commands"],
            "summary": "What became of a command",
            "description": "`done` with the original reply, `in_flight`, `unknown` (never logged, "
            "as far as the engine remembers), or `forgotten` (older than the dedupe window).",
            "parameters": [
                parameter("id", "path", _NAME, example="example-1"),
                parameter(
                    "key",
                    "query",
                    _NAME,
                    example="book-1",
                    description="The command's key. Without it the engine looks among what it "
                    "has lately taken, and may not find an older one.",
                ),
            ],
            "responses": {
                "200": {"description": "The outcome", "content": both(answer)},
                **problems(PLAIN_CODES, "ProblemDocument"),
            },
        }

    # --- reads -----------------------------------------------------------------------------

    def read_paths(self) -> Schema:
        """All queries of all domains."""
        return {
            f"/v1/{route.domain}/{route.spec.path}": {"get": self._read(route)}
            for route in self._routes
        }

    def _read(self, route: Route) -> Schema:
        spec = route.spec
        words = [segment.strip("{}") for segment in route.segments]
        headers = {
            "ETag": {"schema": {"type": "string"}, "description": "Version of the answer"},
            "Ultra-Epoch": {"schema": {"type": "integer"}},
            "Ultra-Offset": {
                "schema": {"type": "integer"},
                "description": "Offset of the last command that the answer reflects",
            },
            "Ultra-Role": {
                "schema": {"enum": ["leader", "follower"]},
                "description": "Of the copy that has answered",
            },
        }
        return {
            "operationId": "_".join(("get", route.domain, *words)).replace("-", "_"),
            "tags": [route.domain.capitalize()],
            "summary": spec.summary,
            "parameters": [
                *self._read_parameters(route, spec),
                parameter(
                    "min_offset",
                    "query",
                    _OFFSET,
                    description="Wait until the command at this offset is reflected: with the "
                    "`offset` of a reply, a read sees that command.",
                ),
                parameter(
                    "read",
                    "query",
                    {"enum": ["leader", "confirm", "follower"], "default": "leader"},
                    description="Who answers. `leader`, `confirm`: the leader, once it has proved "
                    "that it leads still. `follower`: whichever copy is asked, with what it has "
                    "executed.",
                ),
                parameter("If-None-Match", "header", {"type": "string"}),
            ],
            "responses": {
                "200": {
                    "description": "The answer",
                    "headers": headers,
                    "content": both(self.schema(spec.result)),
                },
                "304": {"description": "Not changed", "headers": headers},
                **problems(_READ_CODES, "ProblemDocument"),
            },
        }

    def _read_parameters(self, route: Route, spec: QuerySpec) -> list[Schema]:
        (schema,), components = msgspec.json.schema_components(
            (spec.params,), ref_template=REFERENCE
        )
        members = components[schema["$ref"].rpartition("/")[2]]["properties"]
        in_path = [segment[1:-1] for segment in route.segments if segment.startswith("{")]
        listed = [
            parameter(
                name,
                "path",
                _NAME if name == "key" else clean(members.pop(name)),
                example="book-1" if name == "key" else "example-1",
            )
            for name in in_path
        ]
        return listed + [
            {**parameter(name, "query", clean(member)), "required": "default" not in member}
            for name, member in members.items()
        ]


def document(
    registry: Registry,
    operations: Sequence[Operation],
    version: str,
    *,
    data: bool = True,
    admin: bool = True,
    feed: bool = False,
) -> Mapping[str, Any]:
    """The document of one listener: the data API, the admin API and metrics, or both."""
    builder = _Document(registry, operations)
    commands = builder.command_paths()
    paths: Schema = {}
    tags = []
    if data:
        paths |= {**commands, **builder.read_paths(), **data_paths(feed=feed)}
        tags.append({"name": "Commands", "description": "What changes something."})
        tags += [
            {"name": domain.name.capitalize(), "description": f"Reads of {domain.name}."}
            for domain in registry.domains
            if domain.queries
        ]
    if data and feed:
        tags.append({"name": "Feed", "description": "Stored groups for projections and exports."})
    paths |= health_paths()
    tags.append({"name": "Engine", "description": "Limits, health, metrics, documents."})
    if admin:
        paths |= admin_paths(operations, builder.schema)
        tags.append({"name": "Admin", "description": "For operators; needs the scope `admin`."})
    return {
        "openapi": "3.1.0",
        "info": {"title": "UltraEngine", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        # Without keys (`ultra dev` on the loopback) no authentication is asked for.
        "security": [{"apiKey": []}, {}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": builder.components,
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `Authorization: Bearer ultra_...`",
                }
            },
        },
        "x-problem-codes": [
            {
                "code": row.code,
                "status": row.status,
                "retryable": row.retryable,
                "title": row.title,
                "advice": row.advice,
            }
            for row in PROBLEMS.values()
        ],
    }
