"""Every limit of every schema, with a value just within it and one just beyond, and the complaint.

The table is made from the CRDs themselves, so that no limit can be without its two tests; what a
machine cannot know, such as a text of the greatest length that matches a pattern, is given here.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from tests.e2e.api.whole import Content, at, put, whole, without
from tests.servers.crds import FILES, Field, fields

ITEMS: Final[dict[str, Callable[[int], Any]]] = {
    "spec.domains": lambda n: f"shop.domains:D{n}",
    "spec.projections": lambda n: {"name": f"p{n}", "targetSecretName": "database"},
    "spec.settings": lambda n: {"name": f"ULTRA_X{n}", "value": "1"},
    "spec.scheduling.tolerations": lambda n: {"key": f"k{n}", "operator": "Exists"},
    "spec.scheduling.topologySpreadConstraints": lambda n: {
        "maxSkew": 1, "topologyKey": f"zone{n}", "whenUnsatisfiable": "ScheduleAnyway",
    },
    "spec.restore.offsets": str,
    "spec.slots": lambda n: f"{n}-{n}",
    "status.conditions": lambda n: {
        "type": f"T{n}", "status": "True", "reason": "Serving", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    },
    "status.inSync": lambda n: f"whole-shard-1-{n}",
    "status.plan": lambda n: f"action {n}",
    "status.shards": lambda n: {"shard": n},
}  # fmt: skip
"""An item of each list, by its number."""

LONGEST: Final = {
    "spec.domains[]": "a" * 251 + ":D",
    "spec.storage.size": "1" * 18 + ".00000",
    "spec.snapshots.interval": "000010h000010m1s",
    "spec.backup.location": "s3://bucket/" + "a" * 500,
    "spec.backup.interval": "000010h000010m1s",
    "spec.restore.location": "s3://bucket/" + "a" * 500,
    "spec.restore.time": "2026-01-01T00:00:00." + "0" * 19 + "Z",
    "spec.snapshots.replayTime": "000001h000010m1s",
    "spec.settings[].name": "ULTRA_" + "X" * 58,
    "spec.gateway.ingress.host": ".".join(["a" * 63] * 3 + ["a" * 61]),
    "spec.slots[]": "4000-4095",
    "resources.requests{}": "0" * 20 + "500m",
    "resources.limits{}": "9." + "0" * 22,
}
"""Texts of the greatest length that mean something, by the end of the field's name."""

GONE: Final = object()
_TOLERATION: Final = ("spec", "scheduling", "tolerations", "[]")
_SPREAD: Final = ("spec", "scheduling", "topologySpreadConstraints", "[]")
COMPANIONS: Final[dict[tuple[str, Any], tuple[tuple[str, ...], Any]]] = {
    ("spec.gateway.autoscaling.maxReplicas", 1): (("spec", "gateway", "replicas"), 1),
    ("spec.scheduling.tolerations[].operator", "Exists"): ((*_TOLERATION, "value"), GONE),
    ("spec.scheduling.tolerations[].effect", "NoSchedule"): (
        (*_TOLERATION, "tolerationSeconds"), GONE,
    ),
    ("spec.scheduling.tolerations[].effect", "PreferNoSchedule"): (
        (*_TOLERATION, "tolerationSeconds"), GONE,
    ),
    ("spec.scheduling.topologySpreadConstraints[].whenUnsatisfiable", "ScheduleAnyway"): (
        (*_SPREAD, "minDomains"), GONE,
    ),
}  # fmt: skip
"""What else must change for a value to be valid, because a rule binds the two."""

FORBIDDEN: Final = "!"
"""A character that no pattern takes."""


class Limit(msgspec.Struct, frozen=True):
    """One limit: an object within, an object beyond, and what is said about the latter."""

    kind: str
    field: str
    word: str
    within: Content
    beyond: Content
    complaint: str

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.kind}.{self.field}.{self.word}"

    @property
    def of_status(self) -> bool:
        """Whether the API server takes it by the status subresource alone."""
        return self.field.startswith("status")


def _longest(field: Field, limit: int) -> str | None:
    """A text of this length that the field takes; None for a time, whose length is its own."""
    for ending, text in LONGEST.items():
        if field.name.endswith(ending):
            return text
    if "format" in field.schema:
        return None
    pattern = re.compile(field.schema.get("pattern", ".*"))
    return next(text for text in (one * limit for one in "aA9") if pattern.search(text))


def _text(field: Field, word: str) -> Iterator[tuple[Any, Any, str]]:
    held = at(whole(field.kind), field.path)
    limit = field.schema[word]
    if word == "maxLength":
        longest = _longest(field, limit) or held
        yield longest, "a" * (limit + 1), f"may not be more than {limit} bytes"
    elif word == "minLength":
        yield held, "", f"should be at least {limit} chars long"
    elif word == "pattern":
        yield held, FORBIDDEN * max(2, field.schema.get("minLength", 0)), "should match"
    elif word == "format":
        yield held, "yesterday", "must be of type date-time"


def _listed(field: Field, word: str) -> Iterator[tuple[Any, Any, str]]:
    limit = field.schema[word]
    if word == "maxProperties":
        value = next(iter(at(whole(field.kind), field.path).values()))

        def many(count: int) -> dict[str, Any]:
            return {f"k{n}": value for n in range(count)}

        yield many(limit), many(limit + 1), f"must have at most {limit} items"
        return
    item = ITEMS[field.name]
    if word == "maxItems":
        within, beyond = ([item(n) for n in range(count)] for count in (limit, limit + 1))
        yield within, beyond, f"must have at most {limit} items"
    elif word == "minItems":
        yield [item(n) for n in range(limit)], [], f"should have at least {limit} items"
    elif word == "x-kubernetes-list-type" and limit != "atomic":
        yield [item(0), item(1)], [item(0), item(0)], "Duplicate value"


def _values(field: Field, word: str) -> Iterator[tuple[Any, Any, str]]:
    limit = field.schema[word]
    if word == "minimum":
        yield limit, limit - 1, f"should be greater than or equal to {limit}"
    elif word == "maximum":
        yield limit, limit + 1, f"should be less than or equal to {limit}"
    elif word == "enum":
        for value in limit:
            yield value, "Unheard", 'supported values: "'
    elif word == "type":
        held = at(whole(field.kind), field.path)
        wrong = 7 if limit == "string" else "seven"
        # A time's format is looked at before its type.
        named = field.schema["format"] if limit == "string" and "format" in field.schema else limit
        yield held, wrong, f"must be of type {named}"
    elif word in {"maxLength", "minLength", "pattern"} or field.schema.get("format") == "date-time":
        yield from _text(field, word)
    elif word in {"maxItems", "minItems", "maxProperties", "x-kubernetes-list-type"}:
        yield from _listed(field, word)


def _changed(field: Field, value: Any) -> Content:
    content = whole(field.kind)
    companion = COMPANIONS.get((field.name, value)) if isinstance(value, str | int) else None
    if companion is not None:
        path, other = companion
        content = without(content, path) if other is GONE else put(content, path, other)
    return put(content, field.path, value)


def _of(field: Field) -> Iterator[Limit]:
    for word in field.schema:
        for within, beyond, complaint in _values(field, word):
            yield Limit(
                field.kind, field.name, word if word != "enum" else f"enum.{within}",
                _changed(field, within), _changed(field, beyond), complaint,
            )  # fmt: skip
    for name in field.schema.get("required", ()):
        beyond = without(whole(field.kind), (*field.path, name))
        yield Limit(
            field.kind, field.name, f"required.{name}", whole(field.kind), beyond,
            f"{name}: Required value",
        )  # fmt: skip


def limits() -> list[Limit]:
    """All limits of all kinds below spec and status."""
    return [
        limit
        for kind in FILES
        for field in fields(kind)
        if field.path and field.path[0] in ("spec", "status")
        for limit in _of(field)
    ]
