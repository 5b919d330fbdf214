"""The Domain Protocol: how business logic is plugged into the engine.

A domain is a bounded context: commands, events, state, queries.  The engine owns
order, time, durability, idempotency and recovery; a domain owns meaning.

    decide(state, data, context) -> Accepted(events, result) | Rejection     pure
    evolve(state, event, at)     -> None                                     the only mutation

Rules (requirement 001 §1.3, §14; a sandbox in `ultraengine.testing` checks them):

* ``decide`` reads state, data and context and nothing else, and changes nothing.
* ``evolve`` applies one event and may not fail.  If it finds post-values that differ
  from the event's it raises `InvariantBroken`, which halts the shard.
* No clock, no randomness but ``context.random``, no I/O, no iteration over sets.
* State is held per slot: ``new_state`` makes the state of one empty slot; every key of
  a slot lives in it; ``dump``, ``load`` and ``changes`` handle one slot at a time.

Commands with many items give ``items`` and ``decide_item`` instead of ``decide``: the
engine evolves after each accepted item, so item n sees the items before it.  Runs of
items tied by ``linked`` succeed or fail as a whole; only these pay for ``overlay``.
"""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from ultraengine.model.ids import Epoch, Instant, Offset


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A domain rule said no.  Logged, remembered and replayed like any outcome."""

    code: str
    """Stable; the domain documents its codes.  HTTP 422 unless the engine's table has it."""
    detail: str = ""
    pointer: str = ""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """``decide`` said yes: the events to evolve, in order, and the result for the reply."""

    events: Sequence[Any] = ()
    result: Any = None


Decision = Accepted | Rejection


class History(Protocol):
    """Committed events before the current offset, kept for ever (a function of the log)."""

    def events(self, offset: Offset) -> Sequence[Any] | None:
        """The decoded events of the accepted command at `offset`; None if it had none.

        Only offsets below the command being decided are visible, so a replay reads the same.
        Raises `InvariantBroken` when the history file disagrees with its index.
        """


class Context(Protocol):
    """All that ``decide`` may know besides state and data.  One object, reused per command."""

    @property
    def time(self) -> Instant:
        """Stamped time of the command's frame; never goes back within a shard."""

    @property
    def offset(self) -> Offset:
        """Offset of the command being decided."""

    @property
    def epoch(self) -> Epoch:
        """Epoch of the frame."""

    @property
    def tenant(self) -> str:
        """Authenticated tenant."""

    @property
    def principal(self) -> str:
        """Authenticated caller."""

    @property
    def key(self) -> str:
        """Partition key: the aggregate."""

    @property
    def random(self) -> Random:
        """Random source seeded by (shard, offset): replays draw the same numbers."""

    @property
    def history(self) -> History:
        """Committed events of earlier commands of this domain."""

    def new_id(self) -> str:
        """A fresh id, unique in the shard and the same in every replay."""

    def send(self, *, tenant: str, key: str, type: str, id: str, data: object) -> None:
        """Ask for a command of another key or shard: sent after commit until it is answered, under
        this `id`, so executed once.  Only for domains that say ``sends = True``."""


class At(Protocol):
    """Where an event stands in the log, for ``evolve``."""

    @property
    def offset(self) -> Offset:
        """Offset of the command that produced the event."""

    @property
    def index(self) -> int:
        """Index of the event among that command's events."""

    @property
    def time(self) -> Instant:
        """Stamped time of the frame."""

    @property
    def tenant(self) -> str:
        """Tenant of the command."""

    @property
    def key(self) -> str:
        """Partition key of the command."""


Recorded = Callable[[Any, list[Any], int, int, At], tuple[int, int]]
"""See `CommandSpec.recorded`."""


class CommandSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One command type of a domain at one handler version.

    Give either ``decide`` or the three of ``items``, ``decide_item`` and ``fold``.
    """

    name: str
    """``verb_noun`` without the domain."""
    data: type[msgspec.Struct]
    """Strict schema (``forbid_unknown_fields=True``); decoded from JSON or msgpack."""
    version: int = 1
    summary: str = ""
    """One sentence for the OpenAPI document."""
    scope: str = "write"
    """Scope that the caller's key must have for this domain."""
    prepare: Callable[[Any], Any] | None = None
    """Canonicalise and check shape beyond the schema, before the log.  Pure; may mutate the
    freshly decoded data and returns it.  Raises `Malformed` with a pointer."""
    focus: Callable[[Any, str, str], Any] | None = None
    """(slot state, tenant, key) -> the part of it that the handlers get; by default the slot
    state.  May create an empty part, which must not show in dumps."""
    decide: Callable[[Any, Any, Context], Decision] | None = None
    items: Callable[[Any], Sequence[Any]] | None = None
    guard: Callable[[Any, Any, Context], Rejection | None] | None = None
    """Item commands only: a rejection of the whole command before its first item."""
    decide_item: Callable[[Any, Any, Context], Any] | None = None
    """(state, item, context) -> one event, or a `Rejection` of this item."""
    lane: Callable[[Any, Sequence[Any], int, At, bytearray, list[Any]], int] | None = None
    """A faster way for ordinary items, for example in compiled code: (state, items, index, at,
    buffer, verdicts) -> how many items it has executed, from ``items[index]`` on; it stops at
    the first that it leaves to ``decide_item``.  For each it must have done all that
    ``decide_item`` and ``evolve`` would (the first event at ``at.index``), appended the
    event's msgpack to ``buffer`` and something that ``fold`` takes for the event to
    ``verdicts``.  It is not asked for dry runs; raising halts the shard as in ``evolve``."""
    single: Callable[[Any, Any, At], tuple[Any, bytes, bytes] | None] | None = None
    """The lane of a whole command of one item, the commonest of all: (state, data, at) -> (result,
    its msgpack, msgpack of the array of the one event), or None when nothing was done and the
    command goes the ordinary way.  It must leave commands alone that ``guard``, ``dry_run``
    or ``linked`` have a say in; raising halts the shard as in ``evolve``."""
    recorded: Recorded | None = None
    """The lane of recorded commands: (state, outcomes, index, end, at) -> (outcomes that it has
    evolved whole, from ``outcomes[index]`` on and below `end`; events that it has evolved of the
    one behind them).  They are of one (tenant, key), at consecutive offsets from ``at.offset``
    on.  It stops at the first outcome that is not accepted, has no events or another offset, and
    at the first event that it leaves to ``evolve`` or that does not fit.  It has done all that
    ``evolve`` would, and nothing that changes ``due``.  Whatever the bytes are, it leaves them
    rather than raise: raising is a bug of the lane and halts the shard at the first offset it was
    asked for, which need not be the broken one.  Counts only beside a ``lane`` or ``single``."""
    linked: Callable[[Any], bool] | None = None
    """Whether an item is tied to the next one."""
    overlay: Callable[[Any], Any] | None = None
    """A view of the focused state that takes ``evolve`` without changing the original."""
    linked_failed: Rejection | None = None
    """What the innocent members of a failed run get."""
    fold: Callable[[Sequence[Any], Sequence[Any]], tuple[bool, Any, Rejection | None]] | None = None
    """(items, verdicts) -> (accepted, result, first failure).  ``verdicts[i]`` is the event or
    the `Rejection` of item i."""
    dry_run: Callable[[Any], bool] | None = None
    """Whether the data asks for an answer without a change: decided and answered on an overlay,
    with no events."""
    tenants: frozenset[str] | None = None
    """Only for these tenants (dispatch by tenant); None = all."""


class QuerySpec(msgspec.Struct, frozen=True, kw_only=True):
    """One read of a domain, served from memory at ``GET /v1/{domain}/{path}``.

    ``capture`` runs on the writer's turn and takes what it needs from the slot's state (values,
    never live objects); ``render`` may then take its time on another thread with the history.
    """

    path: str
    """Below the domain, first segment ``{key}``: ``{key}/accounts/{id}``."""
    params: type[msgspec.Struct]
    """Path and query parameters (path ones without ``key``)."""
    result: type
    """Type of the answer, for the OpenAPI document."""
    summary: str
    capture: Callable[[Any, str, str, Any], Any]
    """(slot state, tenant, key, params) -> captured.  Raises `EngineError` (NOT_FOUND …)."""
    render: Callable[[Any, Any, History], Any] | None = None
    """(captured, params, history) -> answer; None = captured is the answer."""
    etag: Callable[[Any], str] | None = None
    """(answer) -> version for the strong ETag."""
    as_of: Callable[[Any], int | None] | None = None
    """(params) -> the offset as of which is asked, in their member ``at_offset``, if one is."""


class Domain(Protocol):
    """A bounded context plugged into the engine."""

    @property
    def name(self) -> str:
        """Lower-case name, the prefix of its command types."""

    @property
    def version(self) -> int:
        """Handler version, stamped on frames; raise it when any decision could change."""

    @property
    def commands(self) -> Sequence[CommandSpec]:
        """All command types; two versions of one name may stand side by side."""

    @property
    def events(self) -> Any:
        """Type or union of tagged, array-like structs; the recorded events of this domain."""

    @property
    def queries(self) -> Sequence[QuerySpec]:
        """All reads served from memory."""

    def new_state(self) -> Any:
        """The state of one empty slot."""

    def evolve(self, state: Any, event: Any, at: At) -> None:
        """Apply one event to the (focused) state.  The only mutation; may not fail."""

    def focus(self, state: Any, tenant: str, key: str) -> Any:
        """The part of the slot state that ``evolve`` gets for events of (tenant, key)."""

    def dump(self, state: Any) -> Iterable[bytes]:
        """The whole slot state as chunks, in an order that depends on content alone.

        An empty state dumps nothing: whether a slot was ever looked at must not show.
        """

    def changes(self, state: Any) -> Iterable[bytes]:
        """Like ``dump``, but only what changed since the last ``mark``."""

    def mark(self, state: Any) -> None:
        """Start counting changes anew: everything so far is in a snapshot."""

    def load(self, state: Any, chunk: bytes, schema: int) -> None:
        """Take one chunk of ``dump`` or ``changes`` written under snapshot schema `schema`."""

    @property
    def schema(self) -> int:
        """Version of the dump format; ``load`` accepts all earlier ones."""

    def due(self, state: Any) -> Instant | None:
        """When the earliest timer of this slot is due; None without timers.  O(1)."""

    def expire(self, state: Any, now: Instant, count_max: int) -> Sequence[tuple[str, str, Any]]:
        """Pure: up to `count_max` (tenant, key, event) of timers due at `now`, in due order."""

    def check(self, state: Any) -> Sequence[str]:
        """Broken invariants of one slot's state as sentences; empty when all hold."""


class StateView(Protocol):
    """Read access to committed state, for queries and doctors."""

    def slot_state(self, domain: str, tenant: str, key: str) -> Any:
        """State of the slot of (tenant, key); an empty one when nothing was stored."""
