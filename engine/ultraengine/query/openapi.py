"""The OpenAPI 3.1 document of `ultra query`, generated from the declared reads.

A pure function of the routes: the same declarations give the same bytes.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ultraengine.advice.recorder import Report
from ultraengine.edge.codec import JSON_TYPE
from ultraengine.edge.openapi import (
    REFERENCE,
    Schema,
    both,
    clean,
    parameter,
    problems,
    public,
)
from ultraengine.edge.problems import ProblemDocument
from ultraengine.model.errors import PROBLEMS
from ultraengine.model.limits import Limits
from ultraengine.model.projection import Column, ColumnType, Table
from ultraengine.model.reads import Computed, Operator, Parameter, Read, path_names
from ultraengine.query.positions import HEADER, OFFSET_MAX, SHARDS_MAX
from ultraengine.query.routes import Route, SqlRoutes
from ultraengine.query.values import SCHEMAS

PLAIN_CODES: Final = (
    "MALFORMED", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "NOT_ACCEPTABLE", "OVERLOADED",
    "DRAINING", "PROJECTION_UNAVAILABLE",
)  # fmt: skip
READ_CODES: Final = (
    *PLAIN_CODES, "QUOTA", "UNKNOWN_FILTER", "BAD_CURSOR", "TOO_LARGE", "READ_TIMEOUT",
    "WAIT_TIMEOUT", "INTERNAL",
)  # fmt: skip
_OFFSET: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": OFFSET_MAX}
_OFFSETS: Final = r"^[0-9]{1,4}=[0-9]{1,18}( *, *[0-9]{1,4}=[0-9]{1,18})*$"
_ABOUT: Final = """\
Reads of the tables that follow the engine's log. Every answer says in `Ultra-Offset` the offset
of the last command that it reflects, by shard; send an offset back in `min_offset` or in the same
header, and the read waits until the tables have come that far."""


class _Document:
    def __init__(self, routes: SqlRoutes, limits: Limits) -> None:
        self._routes = routes.routes
        self._limits = limits
        computed = [route.read.result for route in self._routes if isinstance(route.read, Computed)]
        self._types = [ProblemDocument, Report, *dict.fromkeys(computed)]
        schemas, components = msgspec.json.schema_components(self._types, ref_template=REFERENCE)
        self.components: Schema = {name: clean(one) for name, one in components.items()}
        self._of_type = dict(zip(map(id, self._types), schemas, strict=True))

    def schema(self, kind: Any) -> Schema:
        """The schema of a type that was given to the constructor."""
        return self._of_type[id(kind)]

    def read(self, route: Route) -> Schema:
        """One read."""
        read = route.read
        specific = self._computed(read) if isinstance(read, Computed) else self._rows(route, read)
        headers = {
            "ETag": {"schema": {"type": "string"}, "description": "Of the answer's content"},
            HEADER: {
                "schema": {"type": "string"},
                "description": "Offset of the last command reflected, by shard: `0=41, 1=1007`",
            },
        }
        result = self.schema(read.result) if isinstance(read, Computed) else self._shown(route)
        return {
            "operationId": f"sql_{route.domain}_{read.name}".replace("-", "_"),
            "tags": [route.domain.capitalize()],
            "summary": read.summary,
            "parameters": [*specific, *_waits()],
            "responses": {
                "200": {"description": "The answer", "headers": headers, "content": both(result)},
                "304": {"description": "Not changed", "headers": headers},
                **problems(READ_CODES, "ProblemDocument"),
            },
        }

    def _shown(self, route: Route) -> Schema:
        assert isinstance(route.read, Read)  # noqa: S101  (asked by the caller)
        table = route.tables[route.read.table]
        columns = [table.column(name) for name in route.read.shown]
        row = {
            "type": "object",
            "additionalProperties": False,
            "required": [column.name for column in columns],
            "properties": {column.name: _result(column) for column in columns},
        }
        name = f"{route.domain}_{route.read.name}".replace("-", "_")
        self.components[name] = {"title": name, **row}
        reference = {"$ref": REFERENCE.format(name=name)}
        if route.read.one:
            return reference
        return {
            "type": "object",
            "additionalProperties": False,
            "required": ["items", "next_cursor"],
            "properties": {
                "items": {"type": "array", "items": reference},
                "next_cursor": {
                    "type": ["string", "null"],
                    "description": "Null on the last page.",
                },
            },
        }

    def _rows(self, route: Route, read: Read) -> list[Schema]:
        table = route.tables[read.table]
        listed = [
            parameter(name, "path", _asked(table.column(name)), description=_about(table, name))
            for name in path_names(read.path)
        ]
        listed += [
            _filter(table, one.column, operator)
            for one in read.filters
            for operator in one.operators
        ]
        if not read.one:
            limit_max = self._limits.page_items_max
            page = min(read.page_items, limit_max)
            limit = {"type": "integer", "minimum": 1, "maximum": limit_max, "default": page}
            order = {"enum": [one.name for one in read.orders], "default": read.orders[0].name}
            listed += [
                parameter("order", "query", order),
                parameter("limit", "query", limit),
                parameter(
                    "cursor",
                    "query",
                    {"type": "string"},
                    description="`next_cursor` of the page before, with the same filters.",
                ),
            ]
        return listed

    @staticmethod
    def _computed(read: Computed) -> list[Schema]:
        in_path = path_names(read.path)
        return [
            _parameter(one, "path" if one.name in in_path else "query")
            for one in read.parameters
            if not one.derived
        ]


def _result(column: Column) -> Schema:
    schema = dict(SCHEMAS[column.type])
    if column.nullable and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    if column.summary:
        schema["description"] = column.summary
    return schema


def _asked(column: Column) -> Schema:
    schema = dict(SCHEMAS[column.type])
    if column.type is ColumnType.TEXT:
        schema |= {"maxLength": column.length, "pattern": "^[^\\u0000]*$"}
    return schema


def _about(table: Table, name: str) -> str:
    return table.column(name).summary or name


def _filter(table: Table, name: str, operator: Operator) -> Schema:
    column = table.column(name)
    about = _about(table, name)
    if operator is Operator.EQ:
        return parameter(name, "query", _asked(column), description=about)
    schema = _asked(column)
    if operator is Operator.IN:
        schema = {"type": "string", "description": "Several, with commas between."}
    return parameter(
        f"{name}.{operator.value}", "query", schema, description=f"{about} ({operator.value})"
    )


def _parameter(one: Parameter, where: str) -> Schema:
    schema = _asked(Column(name=one.name, type=one.type, length=one.length))
    if one.choices:
        schema = {"enum": list(one.choices)}
    if one.default is not None:
        schema["default"] = one.default
    found = parameter(one.name, where, schema, description=one.summary or one.name)
    if where == "query":
        found["required"] = one.default is None and not one.optional
    return found


def _waits() -> list[Schema]:
    return [
        parameter(
            "min_offset",
            "query",
            _OFFSET,
            description="Wait until the command at this offset is reflected: with the `offset` of "
            "a reply, a read sees that command.",
        ),
        parameter(
            "shard",
            "query",
            {"type": "integer", "minimum": 0, "maximum": SHARDS_MAX - 1},
            description="Shard of `min_offset`; needed where there are several.",
        ),
        parameter(
            HEADER,
            "header",
            {"type": "string", "pattern": _OFFSETS},
            description="The same for several shards: `0=41, 1=1007`.",
        ),
        parameter("If-None-Match", "header", {"type": "string"}),
    ]


def _service(document: _Document) -> Schema:
    health = {
        "type": "object",
        "required": ["alive", "loop_age_s"],
        "properties": {"alive": {"type": "boolean"}, "loop_age_s": {"type": "number"}},
    }
    any_object: Schema = {"type": "object"}
    patterns = {JSON_TYPE: {"schema": document.schema(Report)}}
    audit = _plain("getProjectionLedger", "Which log the tables have followed", any_object)
    audit["parameters"] = [
        parameter("projection", "path", {"type": "string"}),
        parameter(
            "shard",
            "query",
            {"type": "integer", "minimum": 0, "maximum": SHARDS_MAX - 1, "default": 0},
        ),
        parameter(
            "before",
            "query",
            _OFFSET,
            description="Only writes that end before this offset: `next` of the page before.",
        ),
        parameter(
            "limit",
            "query",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": document._limits.page_items_max,  # noqa: SLF001  (same module)
                "default": 100,
            },
        ),
    ]
    return {
        "/v1/limits": {"get": _plain("getLimits", "Limits in force", any_object)},
        "/healthz": {
            "get": public("getHealth", "Is the process alive", {JSON_TYPE: {"schema": health}})
        },
        "/readyz": {
            "get": {
                **public("getReady", "Can reads be answered", {JSON_TYPE: {"schema": any_object}}),
                "responses": {
                    "200": {
                        "description": "They can",
                        "content": {JSON_TYPE: {"schema": any_object}},
                    },
                    **problems(
                        ("MALFORMED", "OVERLOADED", "DRAINING", "PROJECTION_UNAVAILABLE"),
                        "ProblemDocument",
                    ),
                },
            }
        },
        "/openapi.json": {
            "get": public("getOpenApi", "This document", {JSON_TYPE: {"schema": any_object}})
        },
        "/metrics": {
            "get": public(
                "getMetrics", "Prometheus metrics", {"text/plain": {"schema": {"type": "string"}}}
            )
        },
        "/admin/v1/status": {"get": _plain("getStatus", "Positions, caches, breaker", any_object)},
        "/admin/v1/patterns": {
            "get": {
                **_plain("getPatterns", "What is asked, without values", any_object),
                "responses": {
                    "200": {"description": "The report", "content": patterns},
                    **problems(PLAIN_CODES, "ProblemDocument"),
                },
            }
        },
        "/admin/v1/projections/{projection}/ledger": {"get": audit},
    }


def _plain(name: str, summary: str, schema: Schema) -> Schema:
    return {
        "operationId": name,
        "tags": ["Admin" if "Limits" not in name else "Service"],
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": {JSON_TYPE: {"schema": schema}}},
            **problems(PLAIN_CODES, "ProblemDocument"),
        },
    }


def document(routes: SqlRoutes, limits: Limits, version: str) -> Mapping[str, Any]:
    """The document of one process."""
    builder = _Document(routes, limits)
    paths = {route.path: {"get": builder.read(route)} for route in routes.routes}
    domains = sorted({route.domain for route in routes.routes})
    return {
        "openapi": "3.1.0",
        "info": {"title": "UltraEngine reads over SQL", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        # Without keys (on the loopback) no authentication is asked for.
        "security": [{"apiKey": []}, {}],
        "tags": [
            *({"name": name.capitalize(), "description": f"Tables of {name}."} for name in domains),
            {"name": "Service", "description": "Limits, health, metrics, documents."},
            {"name": "Admin", "description": "For operators; needs the scope `admin`."},
        ],
        "paths": {**paths, **_service(builder)},
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
