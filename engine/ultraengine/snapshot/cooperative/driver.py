"""Reads a cut in short turns on the event loop while a thread writes it.

The loop reads slots, because only it may touch the image; everything that can be done with
bytes alone (compression, encryption, checksums, the disk) happens on the thread, where it
releases the interpreter lock.  At most `BATCHES_WAITING` batches wait between the two.
"""

import asyncio
import contextlib
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ultraengine.ports import Clock
from ultraengine.snapshot.cut import Cut
from ultraengine.snapshot.errors import SnapshotFailed
from ultraengine.snapshot.files import Written
from ultraengine.snapshot.image import Section

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Chunk bytes after which a turn ends."""
BATCHES_WAITING: Final = 2


class TurnTimes:
    """The longest time the loop was kept at once."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        """One more turn."""
        self.longest_s = max(self.longest_s, seconds)


async def write_cut(
    cut: Cut,
    write: Callable[[Iterator[Section]], Written],
    *,
    clock: Clock,
    turn_s: float,
    rest_s: float,
    times: TurnTimes,
) -> Written:
    """Feed `write`, which runs on a thread, with the sections of `cut`.

    Raises what `write` raises, or `SnapshotFailed` when the cut was lost; then `write` sees
    its iterator raise too, so it cannot take half for the whole.
    """
    loop = asyncio.get_running_loop()
    batches: queue.SimpleQueue[Sequence[Section] | None] = queue.SimpleQueue()
    permits = asyncio.Semaphore(BATCHES_WAITING)
    whole = False

    def arriving() -> Iterator[Section]:
        while (batch := batches.get()) is not None:
            yield from batch
            loop.call_soon_threadsafe(permits.release)
        if not whole:
            raise SnapshotFailed("the cut did not come to its end")

    def on_thread() -> Written:
        try:
            return write(arriving())
        finally:
            # The loop may be waiting for a permit that nobody else gives any more.
            loop.call_soon_threadsafe(permits.release)

    writing = loop.run_in_executor(None, on_thread)
    try:
        turns = _turns(cut, clock, turn_s, times)
        await permits.acquire()
        while not writing.done() and (batch := next(turns, None)) is not None:
            batches.put(batch)
            await asyncio.sleep(rest_s)
            await permits.acquire()
        whole = True
    finally:
        batches.put(None)
        # The thread uses the draft's file: it has to end before anybody clears up.
        while not writing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([writing])
        lost = writing.exception()
    if lost is not None:
        raise lost
    return writing.result()


def _turns(cut: Cut, clock: Clock, turn_s: float, times: TurnTimes) -> Iterator[list[Section]]:
    """Batches of whole slots, each read within a turn."""
    batch: list[Section] = []
    size, started = 0, clock.monotonic()
    for sections in cut.slots():
        batch += sections
        size += sum(len(each.chunk) for each in sections)
        spent_s = clock.monotonic() - started
        if spent_s >= turn_s or size >= BATCH_BYTES:
            times.add(spent_s)
            yield batch
            batch, size, started = [], 0, clock.monotonic()
    times.add(clock.monotonic() - started)
    yield batch


async def to_its_end(call: Callable[[], None]) -> None:
    """Run `call` on a thread and to its end, also when the caller is cancelled meanwhile."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
