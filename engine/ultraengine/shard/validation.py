"""Replay validation: decide a range of the log again and compare with what was recorded.

The gate of every upgrade and the proof of determinism: the first command that this build
decides differently is named (requirement 002 D-T.12).  Works on a copy of the state; the
running shard is not touched, its history is only read.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.execution.stores import HistoryStore
from ultraengine.log.reader import RecordedGroup
from ultraengine.model.command import Command
from ultraengine.model.domain import History
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.model.outcome import Outcome
from ultraengine.shard.recovery import skips
from ultraengine.shard.status import ReplayReport

SHOWN_CHARS_MAX = 2_000
"""Of each outcome in a report of a difference."""


class DoesNotFit(EngineError):
    """This build has no handler for a recorded command, or one that cannot read its data."""

    def __init__(self, detail: str, *, offset: int, command_type: str, code: str) -> None:
        super().__init__(detail, code=code)
        self.offset = offset
        self.command_type = command_type


class Reader(Protocol):
    """The part of the log's reader that is needed."""

    def groups(self, from_offset: int, to_offset: int | None = None) -> Iterator[RecordedGroup]:
        """Recorded groups, in order."""


class NothingRemembered:
    """An idempotency memory for executions whose commands are known to be logged once."""

    floor_time = Instant(0)
    floor_offset = Offset(0)

    def find(self, _slot: int, _identity: bytes, /) -> tuple[int, ...]:
        """Never anything."""
        return ()

    def add(self, _slot: int, _identity: bytes, _offset: int, /) -> None:
        """Remember nothing."""

    def add_run(self, _slot: int, _identities: Sequence[bytes], _offset: int, /) -> None:
        """Remember nothing."""

    def raise_floor(self, _offset: int, /) -> None:
        """Nothing is ever forgotten."""

    def drop_slot(self, _slot: int, _offset: int, /) -> None:
        """Nothing is remembered of it."""

    def advance(self, _time: Instant, _offset_end: Offset, /) -> None:
        """Forget nothing."""

    def dump_slot(self, _slot: int, *, full: bool = True) -> Iterator[bytes]:
        """No content."""
        del full
        return iter(())

    def load_slot(self, _slot: int, _chunk: bytes) -> None:
        """Drop it."""

    def dump_shard(self) -> bytes:
        """No content."""
        return b""

    def load_shard(self, _chunk: bytes) -> None:
        """Drop it."""

    def load_done(self) -> None:
        """Nothing was loaded."""

    def mark(self, _slot: int | None = None) -> None:
        """Nothing changes."""


class ReadOnlyHistory:
    """The shard's history without its end: a validation appends nothing to it."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store

    def append(self, _offset: int, _domain: str, _payload: bytes, /) -> None:
        """It is there already."""

    def append_run(self, _offset: int, _domain: str, _payloads: Sequence[bytes], /) -> None:
        """They are there already."""

    def view(self, domain: str, visible_end: Callable[[], int], /) -> History:
        """Reads below `visible_end`, so that the future is not seen."""
        return self._store.view(domain, visible_end)


def validate(
    executor: Executor, reader: Reader, *, from_offset: int, to_offset: int | None
) -> ReplayReport:
    """Bring `executor` to `from_offset` by recorded outcomes, then decide and compare.

    Stops at the first difference.  A command without a recorded outcome is not compared, nor is
    one with a logged override: what is recorded of it is no decision.  Raises `EvolveFailed`.
    Raises `EngineError` NOT_FOUND when the log no longer reaches back to the executor.
    """
    if from_offset < executor.applied_end:
        raise EngineError(
            f"the state can be had from offset {executor.applied_end} on, not {from_offset}",
            code="NOT_FOUND",
        )
    compared = 0
    overridden = executor.skipped | set(skips(reader.groups(executor.applied_end)))
    for group in reader.groups(executor.applied_end, to_offset):
        header, outcomes = group.header, group.outcomes or []
        time, epoch = Instant(header.time), Epoch(header.epoch)
        first = max(0, executor.applied_end - header.base_offset)
        before = from_offset if to_offset is None else min(from_offset, to_offset)
        last = min(before - header.base_offset, len(outcomes))
        if first < last:
            executor.replay_group(
                group.commands[first:last], outcomes[first:last], time=time, epoch=epoch
            )
        for command, recorded in zip(group.commands, outcomes, strict=False):
            offset = Offset(recorded.offset)
            if offset < executor.applied_end or (to_offset is not None and offset >= to_offset):
                continue
            if offset in overridden:
                executor.replay(command, recorded, time=time, epoch=epoch)
                continue
            admitted = _restored(executor.registry, command, offset)
            decided = executor.execute(admitted, offset=offset, time=time, epoch=epoch).outcome
            if decided != recorded:
                return _report(
                    executor.registry,
                    from_offset,
                    int(offset),
                    compared,
                    difference=(command.type, recorded, decided),
                )
            compared += 1
    return _report(executor.registry, from_offset, executor.applied_end, compared)


def _restored(registry: Registry, command: Command, offset: Offset) -> Admitted:
    try:
        return registry.restore(command)
    except EngineError as error:
        raise DoesNotFit(
            error.detail, offset=int(offset), command_type=command.type, code=error.code
        ) from error
    except ValueError as error:
        detail = f"the data of the command at offset {offset} does not fit here: {error}"
        raise DoesNotFit(
            detail, offset=int(offset), command_type=command.type, code="MALFORMED"
        ) from error


def _report(
    registry: Registry,
    from_offset: int,
    end: int,
    compared: int,
    difference: tuple[str, Outcome, Outcome] | None = None,
) -> ReplayReport:
    equal = ReplayReport(
        from_offset=from_offset,
        to_offset=end,
        compared=compared,
        handlers=registry.handlers,
        equal=difference is None,
    )
    if difference is None:
        return equal
    command_type, recorded, decided = difference
    return msgspec.structs.replace(
        equal,
        first_difference=end,
        command_type=command_type,
        recorded=_shown(recorded),
        decided=_shown(decided),
    )


def _shown(outcome: Outcome) -> str:
    """An outcome as JSON-like text for people, its raw parts decoded, cut to a bound."""
    plain: dict[str, Any] = {
        "status": outcome.status,
        "version": outcome.version,
        "result": msgspec.msgpack.decode(outcome.result),
        "events": msgspec.msgpack.decode(outcome.events),
        "failure": outcome.failure,
        "messages": msgspec.msgpack.decode(outcome.messages),
    }
    return msgspec.json.encode(plain).decode()[:SHOWN_CHARS_MAX]
