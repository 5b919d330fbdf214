"""What the two transports share: one lane of commands and the rules for their attempts.

A sender owns one lane and one task.  The task sleeps until something is ready, sends it in
the transport's way, and hands each answer to `answered` or each failed request to `failed`;
these decide between "done", "again later" and "no".
"""

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

import aiohttp
import msgspec

from ultraengine.client.addresses import Addresses
from ultraengine.client.backoff import Backoff
from ultraengine.client.lane import Lane
from ultraengine.client.pending import Pending
from ultraengine.client.wire import DECIDED, Setback, is_retryable, is_uncertain
from ultraengine.model.errors import PROBLEMS
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.model.reply import Reply, ReplyError

FRAME_SLACK_BYTES = 64
"""Array header and the like, beside the commands of a batch."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a sender needs to know."""

    addresses: Addresses
    """Where the engine is; shared by all lanes, so that one finds the leader for all."""
    headers: dict[str, str]
    backoff: Backoff = Backoff()
    connect_timeout_s: float = 5.0
    """Longest wait for a connection; then the attempt failed and was certainly not logged."""
    silence_s: float = DEFAULT_LIMITS.reply_wait_s + 5.0
    """Longest wait for the first byte of an answer; the engine itself answers before.  With
    several addresses, how long a process that says nothing is waited for."""
    commands_per_batch_max: int = DEFAULT_LIMITS.commands_per_batch_max
    batch_bytes_max: int = DEFAULT_LIMITS.batch_bytes_max - FRAME_SLACK_BYTES


class Sender(ABC):
    """One lane and the task that empties it."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._lane = Lane(
            commands_max=settings.commands_per_batch_max, bytes_max=settings.batch_bytes_max
        )
        self._wake = asyncio.Event()
        self._failures = 0
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def add(self, pending: Pending) -> None:
        """Queue a command behind all earlier ones of this lane."""
        self._lane.add(pending)
        self._wake.set()
        if self._task.done():
            self._ended(self._task)

    async def close(self) -> None:
        """Stop; whatever is unanswered gets an error that says what is known about it."""
        self._task.cancel()
        await asyncio.wait([self._task])
        for pending in [*self._unanswered(), *self._lane.drain()]:
            pending.give_up("CLOSED")

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A bug of the sender must not leave its callers waiting."""
        if task.cancelled():
            return
        error = task.exception() or RuntimeError("the sender ended")
        for pending in [*self._unanswered(), *self._lane.drain()]:
            if not pending.future.done():
                pending.future.set_exception(error)

    @abstractmethod
    async def _run(self) -> None:
        """Send what is ready, for ever."""

    @abstractmethod
    def _unanswered(self) -> Sequence[Pending]:
        """Commands that were sent and not answered, in order."""

    async def _until_ready(self) -> None:
        """Return when the lane may have something to send."""
        while self._lane.ready_count == 0:
            self._wake.clear()
            at = self._lane.wake_at()
            if at is not None and at <= self._loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(at):
                    await self._wake.wait()

    def _worked(self) -> None:
        """The engine has answered."""
        self._failures = 0
        self._settings.addresses.work()

    def _answered(self, answers: Sequence[tuple[Pending, Reply]]) -> None:
        """Settle commands that got a reply of their own."""
        again: dict[str, list[Pending]] = {}
        until: dict[str, float] = {}
        now = self._loop.time()
        for pending, reply in answers:
            if reply.outcome in DECIDED:
                pending.finish(reply)
                continue
            error = reply.error or ReplyError("INTERNAL", "The reply names no error.")
            if is_uncertain(reply):
                pending.lost(error)
            else:
                pending.not_logged(error, reply)
            if not is_retryable(reply):
                pending.give_up()
                continue
            pending.attempts += 1
            at = now + self._delay_s(pending.attempts, error.retry_after_s)
            if pending.is_over_by(at):
                # Its deadline comes before its next attempt: say so now.
                pending.give_up()
                continue
            again.setdefault(pending.key, []).append(pending)
            until[pending.key] = max(at, until.get(pending.key, 0.0))
        for key, pendings in again.items():
            self._lane.park(pendings, until[key])

    async def _failed(self, url: str, batch: Sequence[Pending], setback: Setback) -> None:
        """Settle commands whose whole request to `url` failed; returns when the lane may go on."""
        for pending in batch:
            if setback.certain:
                pending.not_logged(setback.error, _as_refusal(pending, setback))
            else:
                pending.lost(setback.error)
        if setback.error.code == "TOO_LARGE" and len(batch) > 1:
            # The engine's limits are below ours: smaller batches from now on.
            self._lane.limit_batches(len(batch) // 2)
            self._lane.put_back(batch)
            return
        if not setback.retryable:
            for pending in batch:
                pending.give_up()
            return
        if self._settings.addresses.failed(url, setback.error.code):
            delay = self._delay_s(1, None)
        else:
            self._failures += 1
            delay = self._delay_s(self._failures, setback.error.retry_after_s)
        at = self._loop.time() + delay
        for pending in batch:
            if pending.is_over_by(at):
                pending.give_up()
        self._lane.put_back(batch)
        await asyncio.sleep(delay)

    def _delay_s(self, attempts: int, retry_after_s: float | None) -> float:
        return self._settings.backoff.delay_s(attempts, random.random(), retry_after_s)  # noqa: S311  (jitter, not a secret)


def _as_refusal(pending: Pending, setback: Setback) -> Reply | None:
    """A reply for a command of a refused request; None when nobody answered."""
    if not setback.status:
        return None
    return Reply(id=pending.id, outcome="refused", error=setback.error)


def unreachable(error: BaseException) -> Setback:
    """No connection: certainly nothing was logged."""
    return Setback(_network("UNREACHABLE", error), retryable=True, certain=True)


def interrupted(error: BaseException) -> Setback:
    """The connection ended between request and answer: nothing is known."""
    return Setback(_network("OUTCOME_UNKNOWN", error), retryable=True, certain=False)


def _network(code: str, error: BaseException) -> ReplyError:
    advice = PROBLEMS[code].advice if code in PROBLEMS else ""
    return ReplyError(code, f"{type(error).__name__}: {error}".rstrip(": "), advice=advice)
