"""Counters: one integer per partition key, with optional bounds.

    counter.add {"delta": 5, "minimum": 0, "maximum": 10}   ->  {"value": 5}
    GET /v1/counter/{key}                                   ->  {"value": 5, "additions": 1}

A bound belongs to the command, not to the counter: it says what the sum may be after it.
Numbers stay within 64 bits, so that every codec and every language can carry them.

Rejections: ``below_minimum``, ``above_maximum``, ``out_of_range``.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from ultraengine.execution.layouts import HashLayout, LayoutDomain
from ultraengine.model.domain import Accepted, At, CommandSpec, Context, QuerySpec, Rejection
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]


class Counter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is kept of one counter."""

    value: int
    additions: int
    """Accepted ``counter.add`` commands."""


NOTHING: Final = Counter(0, 0)
"""A counter that nothing was added to is 0."""

Key = tuple[str, str]
"""(tenant, partition key)."""
Counters = HashLayout[Key, Counter]


class Add(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Data of ``counter.add``."""

    delta: Int64
    """May be negative, and 0."""
    minimum: Int64 | None = None
    """Reject when the sum would be less."""
    maximum: Int64 | None = None
    """Reject when the sum would be more."""


class Added(msgspec.Struct, frozen=True, array_like=True, tag="added", gc=False):
    """Something was added; ``value`` is the sum after it."""

    delta: int
    value: int


class Sum(msgspec.Struct, frozen=True, gc=False):
    """Result of ``counter.add``."""

    value: int


class CounterParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``GET /v1/counter/{key}`` has no parameters."""


class CounterAnswer(msgspec.Struct, frozen=True):
    """Answer of ``GET /v1/counter/{key}``."""

    value: int
    additions: int


def prepare(data: Add) -> Add:
    """Refuse bounds that no sum can keep.  Raises `Malformed`."""
    if data.minimum is not None and data.maximum is not None and data.minimum > data.maximum:
        raise Malformed("'minimum' is more than 'maximum'", pointer="/data/minimum")
    return data


def decide(state: Counters, data: Add, context: Context) -> Accepted | Rejection:
    """Add, unless the sum leaves the bounds asked for or 64 bits."""
    value = (state.get((context.tenant, context.key)) or NOTHING).value + data.delta
    if data.minimum is not None and value < data.minimum:
        return Rejection("below_minimum", f"the sum would be {value}", "/data/minimum")
    if data.maximum is not None and value > data.maximum:
        return Rejection("above_maximum", f"the sum would be {value}", "/data/maximum")
    if not INT64_MIN <= value <= INT64_MAX:
        return Rejection("out_of_range", f"the sum would be {value}", "/data/delta")
    return Accepted((Added(data.delta, value),), Sum(value))


def capture(state: Counters, tenant: str, key: str, _params: CounterParams) -> CounterAnswer:
    """Raises `EngineError` NOT_FOUND for a counter that nothing was added to."""
    counter = state.get((tenant, key))
    if counter is None:
        raise EngineError(f"no counter {key!r}", code="NOT_FOUND")
    return CounterAnswer(counter.value, counter.additions)


def etag(answer: CounterAnswer) -> str:
    """A counter moves with every addition, even one of 0."""
    return str(answer.additions)


class CounterDomain(LayoutDomain):
    """The bounded context ``counter``."""

    name = "counter"
    events = Added
    commands = (
        CommandSpec(
            name="add",
            data=Add,
            summary="Add to a counter, within bounds.",
            prepare=prepare,
            decide=decide,
        ),
    )
    queries = (
        QuerySpec(
            path="{key}",
            params=CounterParams,
            result=CounterAnswer,
            summary="Value of a counter.",
            capture=capture,
            etag=etag,
        ),
    )

    def new_state(self) -> Counters:
        """No counters."""
        return HashLayout(Key, Counter)

    def evolve(self, state: Counters, event: Added, at: At) -> None:
        """Raises `InvariantBroken` when the sum is not the recorded one."""
        key = (at.tenant, at.key)
        counter = state.get(key) or NOTHING
        value = counter.value + event.delta
        if value != event.value:
            raise InvariantBroken(
                "a counter reaches the recorded value",
                key=at.key,
                offset=at.offset,
                reached=value,
                recorded=event.value,
            )
        state.put(key, Counter(value, counter.additions + 1))

    def check(self, state: Counters) -> Sequence[str]:
        """Every value fits 64 bits, and every kept counter was added to."""
        return [
            f"counter {key[1]!r} of tenant {key[0]!r} holds {counter.value} after "
            f"{counter.additions} additions"
            for key, counter in state.items()
            if not INT64_MIN <= counter.value <= INT64_MAX or counter.additions < 1
        ]


DOMAIN: Final = CounterDomain()
