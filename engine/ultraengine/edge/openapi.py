"""Parts of an OpenAPI 3.1 document that know no domain: parameters, problems, health, clean-up."""

import inspect
from collections.abc import Sequence
from typing import Any, Final

from ultraengine.edge.codec import JSON_TYPE, MSGPACK_TYPE, PROBLEM_TYPE
from ultraengine.model.errors import PROBLEMS

Schema = dict[str, Any]
REFERENCE: Final = "#/components/schemas/{name}"


def parameter(name: str, where: str, schema: Schema, **more: Any) -> Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, **more}


def problems(codes: Sequence[str], schema: str) -> dict[str, Schema]:
    """Problem responses by status, each naming its codes."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    content = {PROBLEM_TYPE: {"schema": {"$ref": REFERENCE.format(name=schema)}}}
    return {
        str(status): {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in listed),
            "content": content,
        }
        for status, listed in sorted(by_status.items())
    }


def both(schema: Schema, **more: Any) -> Schema:
    """A body in either codec; only JSON carries examples."""
    return {JSON_TYPE: {"schema": schema, **more}, MSGPACK_TYPE: {"schema": schema}}


def public(name: str, summary: str, content: Schema) -> Schema:
    return {
        "operationId": name,
        "tags": ["Engine"],
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": summary, "content": content},
            **problems(("MALFORMED", "OVERLOADED", "SHARD_UNAVAILABLE"), "ProblemDocument"),
        },
    }


def clean(node: Any) -> Any:
    """Descriptions as Markdown: docstrings without their indentation and double backquotes."""
    if isinstance(node, dict):
        return {
            name: inspect.cleandoc(member).replace("``", "`")
            if name == "description" and isinstance(member, str)
            else clean(member)
            for name, member in node.items()
        }
    return [clean(member) for member in node] if isinstance(node, list) else node
