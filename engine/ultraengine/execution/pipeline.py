"""From a `CommandSpec` to one compiled function per command type.

    shape -> authorization -> admission hooks -> (log) -> before hooks -> guard -> decide,
    evolve -> after hooks

Everything that can be known at start is bound into closures here, so that the hot path
looks nothing up (requirement 001 §6.2).  The compiled function is given the focused state
and mutates it through ``evolve`` alone.

Events are encoded *before* they are evolved: what cannot be recorded must not happen.
A ``decide`` that raises changes nothing and becomes a logged INTERNAL; an item that raises
fails alone.  An exception in ``evolve`` leaves as `EvolveFailed` and halts the shard.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from ultraengine.execution.context import CommandContext, EventPlace
from ultraengine.model.command import Command
from ultraengine.model.domain import CommandSpec, Rejection
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, Failure, Outcome, Status

INTERNAL: Final = "INTERNAL"
NO_EVENTS: Final = b"\x90"
"""msgpack of an empty array."""
_ACCEPTED: Final = int(Status.ACCEPTED)
_REJECTED: Final = int(Status.REJECTED)
_INTERNAL: Final = int(Status.INTERNAL)
# Plain numbers: on the hot path an enumeration's attribute costs more than the struct it is in.
_ENCODER: Final = msgspec.msgpack.Encoder()
_Raw: Final = msgspec.Raw


class EvolveFailed(InvariantBroken):
    """``evolve`` raised: memory cannot be trusted any more, the shard halts at this offset."""


class NoDomain(EvolveFailed):
    """A recorded command belongs to a domain that this process was not given."""


class AdmissionHook(Protocol):
    """Runs before the log, at the edge: may refuse, leaves no trace when it does."""

    def __call__(self, command: Command, payload: Any, /) -> None:
        """Raises `EngineError` to refuse."""


class BeforeHook(Protocol):
    """Runs before ``decide``; deterministic, so its rejection is a logged result."""

    def __call__(
        self, command: Command, payload: Any, context: CommandContext, /
    ) -> Rejection | None:
        """A rejection, or None to go on."""


class AfterHook(Protocol):
    """Runs after the command was executed; sees all, changes nothing of the engine, never waits.

    Called at most once for a command, by the shard that serves it.  Never where commands are
    decided again (a start, a validation, the proof of a snapshot), nor for recorded outcomes: an
    effect on the outside is not repeated there.  So a command may also go by unseen, when the
    process ends between its flush and the call.  What may not be missed reads the feed or is a
    message.
    """

    def __call__(self, command: Command, verdict: "Verdict", /) -> None:
        """Observe.  What it raises is counted and otherwise ignored."""


class Hooks(msgspec.Struct, frozen=True):
    """Hooks of one engine, in the order in which they run."""

    admission: tuple[AdmissionHook, ...] = ()
    before: tuple[BeforeHook, ...] = ()
    after: tuple[AfterHook, ...] = ()


_NOT_YET: Final = Outcome(-1, _INTERNAL, 0, NIL, EMPTY_ARRAY)


class Verdict(msgspec.Struct, eq=False):
    """What one command came to: what is recorded, and the result as an object for the reply."""

    status: int
    """A `model.outcome.Status`, as the plain number that is recorded."""
    events: bytes = NO_EVENTS
    """msgpack array of the events."""
    result: Any = None
    raw_result: msgspec.Raw = NIL
    failure: Failure | None = None
    error: BaseException | None = None
    """What a handler raised, for the alarm; never part of the outcome."""
    changed: bool = False
    """Whether the version of the aggregate moves."""
    outcome: Outcome = _NOT_YET
    """Set by the executor once the command is done."""


Run = Callable[[Any, Command, Any, CommandContext, EventPlace], Verdict]
Evolve = Callable[[Any, Any, Any], None]
Lane = Callable[[Any, Sequence[Any], int, EventPlace, bytearray, list[Any]], int]


def rejected(rejection: Rejection) -> Verdict:
    """A domain rule said no to the whole command."""
    verdict = Verdict(_REJECTED)
    verdict.failure = Failure(rejection.code, rejection.detail, rejection.pointer)
    return verdict


def other_version(offset: int, expected: int, version: int) -> Verdict:
    """The rejection of a command that expects another version."""
    verdict = Verdict(Status.REJECTED)
    verdict.failure = Failure(
        "VERSION_MISMATCH",
        f"expected version {expected}, found {version}",
        "/expected_version",
        version,
    )
    verdict.outcome = Outcome(offset, verdict.status, version, NIL, EMPTY_ARRAY, verdict.failure)
    return verdict


def internal(error: BaseException) -> Verdict:
    """A handler raised: a poison command is answered, remembered and done with."""
    verdict = Verdict(_INTERNAL)
    verdict.failure = Failure(INTERNAL, f"the handler raised {type(error).__name__}")
    verdict.error = error
    return verdict


def compile_run(spec: CommandSpec, evolve: Evolve, before: Sequence[BeforeHook]) -> Run:
    """One function for all of a command type's execution."""
    core = _compile_decide(spec, evolve) if spec.decide else _compile_items(spec, evolve)
    if not before:
        return core
    hooks = tuple(before)

    def run(
        state: Any, command: Command, payload: Any, context: CommandContext, place: EventPlace
    ) -> Verdict:
        try:
            for hook in hooks:
                rejection = hook(command, payload, context)
                if rejection is not None:
                    return rejected(rejection)
        except Exception as error:  # noqa: BLE001  (a poison command must not stop the shard)
            return internal(error)
        return core(state, command, payload, context, place)

    return run


def _compile_decide(spec: CommandSpec, evolve: Evolve) -> Run:
    decide, dry_run, encode = spec.decide, spec.dry_run, _ENCODER.encode
    if decide is None or spec.items is not None:
        raise InvariantBroken("a command has either decide or items", command=spec.name)

    def run(
        state: Any, _command: Command, payload: Any, context: CommandContext, place: EventPlace
    ) -> Verdict:
        try:
            decision = decide(state, payload, context)
            if isinstance(decision, Rejection):
                return rejected(decision)
            result = decision.result
            raw_result = NIL if result is None else _Raw(encode(result))
            if dry_run is not None and dry_run(payload):
                return Verdict(_ACCEPTED, NO_EVENTS, result, raw_result)
            events = decision.events
            encoded = encode(events) if events else NO_EVENTS
        except Exception as error:  # noqa: BLE001  (a poison command must not stop the shard)
            return internal(error)
        try:
            for index, event in enumerate(events):
                place.index = index
                evolve(state, event, place)
        except Exception as error:
            raise EvolveFailed("evolve may not fail", offset=place.offset) from error
        return Verdict(_ACCEPTED, encoded, result, raw_result, None, None, True)  # noqa: FBT003  (by position, see `reply.compose`)

    return run


class _Items:
    """The parts of an item command, checked once."""

    def __init__(self, spec: CommandSpec) -> None:
        if spec.items is None or spec.decide_item is None or spec.fold is None:
            raise InvariantBroken(
                "an item command needs items, decide_item and fold", command=spec.name
            )
        if (spec.linked is not None or spec.dry_run is not None) and spec.overlay is None:
            raise InvariantBroken("linked items and dry runs need an overlay", command=spec.name)
        if spec.linked is not None and spec.linked_failed is None:
            raise InvariantBroken("linked items need linked_failed", command=spec.name)
        self.items, self.guard = spec.items, spec.guard
        self.decide_item, self.fold = spec.decide_item, spec.fold
        self.lane, self.single = spec.lane, spec.single
        self.linked, self.overlay, self.dry_run = spec.linked, spec.overlay, spec.dry_run
        self.linked_failed = spec.linked_failed


def _compile_items(spec: CommandSpec, evolve: Evolve) -> Run:
    parts = _Items(spec)
    linked, single = parts.linked, parts.single

    def run(
        state: Any, _command: Command, payload: Any, context: CommandContext, place: EventPlace
    ) -> Verdict:
        if single is not None:
            try:
                done = single(state, payload, place)
            except Exception as error:
                raise EvolveFailed("evolve may not fail", offset=place.offset) from error
            if done is not None:
                result, encoded, events = done
                return Verdict(_ACCEPTED, events, result, _Raw(encoded), None, None, True)  # noqa: FBT003  (by position, see `reply.compose`)
        try:
            items = parts.items(payload)
            rejection = parts.guard(state, payload, context) if parts.guard else None
            if rejection is not None:
                return rejected(rejection)
            dry = parts.dry_run is not None and parts.dry_run(payload)
            if dry and parts.overlay is not None:
                state = parts.overlay(state)
        except Exception as error:  # noqa: BLE001  (a poison command must not stop the shard)
            return internal(error)
        if len(items) == 1 and (linked is None or not linked(items[0])):
            return _run_single(parts, evolve, state, items, context, place, dry=dry)
        return _run_many(parts, evolve, state, items, context, place, dry=dry)

    return run


def _run_many(
    parts: _Items,
    evolve: Evolve,
    state: Any,
    items: Sequence[Any],
    context: CommandContext,
    place: EventPlace,
    *,
    dry: bool,
) -> Verdict:
    """Items one after the other, each seeing the effects of those before it."""
    decide_item, linked = parts.decide_item, parts.linked
    lane = None if dry else parts.lane
    buffer = bytearray()
    verdicts: list[Any] = []
    raised: Exception | None = None
    count = 0
    index, end, sent = 0, len(items), len(context.messages)
    while index < end:
        if lane is not None:
            taken = _take(lane, state, items, index, count, place, buffer, verdicts)
            index, count = index + taken, count + taken
            if index == end:
                break
        item = items[index]
        if linked is not None and linked(item):
            stop = _end_of_run(items, index, linked)
            place.index = count
            applied, error = _run_linked(
                parts, evolve, state, items[index:stop], context, place, buffer, verdicts
            )
            count, raised = count + applied, error or raised
            index, sent = stop, len(context.messages)
            continue
        index += 1
        mark = len(buffer)
        try:
            event = decide_item(state, item, context)
            if type(event) is Rejection:
                context.unsend(sent)
                verdicts.append(event)
                continue
            _ENCODER.encode_into(event, buffer, mark)
        except Exception as error:  # noqa: BLE001  (one poison item fails alone)
            del buffer[mark:]
            context.unsend(sent)
            raised = error
            verdicts.append(_poison(error))
            continue
        place.index = count
        try:
            evolve(state, event, place)
        except Exception as error:
            raise EvolveFailed("evolve may not fail", offset=place.offset) from error
        count += 1
        if context.used:
            sent = len(context.messages)
        verdicts.append(event)
    return _fold(parts, items, verdicts, buffer, count, place, dry=dry, raised=raised)


def _take(
    lane: Lane,
    state: Any,
    items: Sequence[Any],
    index: int,
    count: int,
    place: EventPlace,
    buffer: bytearray,
    verdicts: list[Any],
) -> int:
    """Let the domain's lane execute what it can from `index` on; returns the items done."""
    place.index = count
    try:
        return lane(state, items, index, place, buffer, verdicts)
    except Exception as error:
        raise EvolveFailed("evolve may not fail", offset=place.offset) from error


def _end_of_run(items: Sequence[Any], start: int, linked: Callable[[Any], bool]) -> int:
    """Behind the last item that is tied to the one at `start`, which is linked to its next."""
    stop = start + 1
    while stop < len(items) and linked(items[stop - 1]):
        stop += 1
    return stop


def _run_single(
    parts: _Items,
    evolve: Evolve,
    state: Any,
    items: Sequence[Any],
    context: CommandContext,
    place: EventPlace,
    *,
    dry: bool,
) -> Verdict:
    """The commonest command: one item that is linked to none."""
    if parts.lane is not None and not dry:
        buffer, verdicts = bytearray(), list[Any]()
        if _take(parts.lane, state, items, 0, 0, place, buffer, verdicts):
            return _fold(parts, items, verdicts, buffer, 1, place, dry=dry, raised=None)
    sent = len(context.messages)
    try:
        event = parts.decide_item(state, items[0], context)
        if type(event) is Rejection:
            context.unsend(sent)
            return _fold(parts, items, [event], b"", 0, place, dry=dry, raised=None)
        encoded = _ENCODER.encode(event)
    except Exception as error:  # noqa: BLE001  (one poison item fails alone)
        context.unsend(sent)
        return _fold(parts, items, [_poison(error)], b"", 0, place, dry=dry, raised=error)
    place.index = 0
    try:
        evolve(state, event, place)
    except Exception as error:
        raise EvolveFailed("evolve may not fail", offset=place.offset) from error
    return _fold(parts, items, [event], encoded, 1, place, dry=dry, raised=None)


def _poison(error: Exception) -> Rejection:
    return Rejection(INTERNAL, f"the handler raised {type(error).__name__}")


def _run_linked(
    parts: _Items,
    evolve: Evolve,
    state: Any,
    items: Sequence[Any],
    context: CommandContext,
    place: EventPlace,
    buffer: bytearray,
    verdicts: list[Any],
) -> tuple[int, Exception | None]:
    """Decide a run on an overlay; apply it whole or not at all.

    Returns the number of events applied, and what a handler raised.
    """
    assert parts.overlay is not None  # noqa: S101  (checked by _Items at start)
    assert parts.linked_failed is not None  # noqa: S101  (checked by _Items at start)
    first = place.index
    mark, sent = len(buffer), len(context.messages)
    events: list[Any] = []
    failure: Rejection | None = None
    raised: Exception | None = None
    try:
        view = parts.overlay(state)
        for item in items:
            event = parts.decide_item(view, item, context)
            if type(event) is Rejection:
                failure = event
                break
            _ENCODER.encode_into(event, buffer, len(buffer))
            place.index = first + len(events)
            evolve(view, event, place)
            events.append(event)
    except Exception as error:  # noqa: BLE001  (a poison item fails its run, nothing more)
        failure, raised = _poison(error), error
    if failure is not None:
        del buffer[mark:]
        context.unsend(sent)
        innocent = parts.linked_failed
        failed_at = len(events)
        verdicts.extend(failure if n == failed_at else innocent for n in range(len(items)))
        return 0, raised
    try:
        for position, event in enumerate(events):
            place.index = first + position
            evolve(state, event, place)
    except Exception as error:
        raise EvolveFailed("evolve may not fail", offset=place.offset) from error
    verdicts.extend(events)
    return len(events), None


_SHORT_HEADERS: Final = tuple(bytes((0x90 | count,)) for count in range(16))


def _array_header(count: int) -> bytes:
    """msgpack header of an array of `count` elements (specification, array format family)."""
    if count < 16:
        return _SHORT_HEADERS[count]
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def _fold(
    parts: _Items,
    items: Sequence[Any],
    verdicts: list[Any],
    buffer: bytes | bytearray,
    count: int,
    place: EventPlace,
    *,
    dry: bool,
    raised: Exception | None,
) -> Verdict:
    try:
        accepted, result, first = parts.fold(items, verdicts)
        raw_result = _Raw(_ENCODER.encode(result))
    except Exception as error:  # noqa: BLE001  (the events stand; only the answer is lost)
        accepted, result, raw_result = count > 0, None, NIL
        first, raised = _poison(error), error
    if count and not dry and not accepted:
        raise EvolveFailed("a command with events is accepted", offset=place.offset, events=count)
    verdict = Verdict(
        _ACCEPTED if accepted else _REJECTED, NO_EVENTS, result, raw_result, None, raised
    )
    if first is not None:
        verdict.failure = Failure(first.code, first.detail, first.pointer)
        if not accepted and first.code == INTERNAL:
            verdict.status = _INTERNAL
    if accepted and not dry:
        verdict.changed = True
        if count:
            verdict.events = _array_header(count) + buffer
    return verdict
