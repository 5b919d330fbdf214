"""What answers wait for: a recorded outcome read from disk, or an offset being reached."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ultraengine.log.reader import LogReader
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant
from ultraengine.reply.recorded import Name, Recorded


class Recall:
    """Finds the first attempt of a command: in memory, else in the log, off the loop."""

    def __init__(
        self,
        reader: LogReader,
        threads: ThreadPoolExecutor,
        unrecorded: Mapping[int, Recorded],
        carried: Callable[[Recorded, Name], Recorded | None] = lambda _recorded, _name: None,
    ) -> None:
        """`carried`: the command of a name inside a batch that a slot has come in."""
        self._carried = carried
        self._reader = reader
        self._threads = threads
        self._unrecorded = unrecorded
        """By offset: executed, and not in the log's durable part yet."""

    async def find(self, name: Name, candidates: Sequence[int]) -> Recorded | None:
        """The command of this name among the offsets, newest first; None if none is it.

        A name with an empty key matches any key.
        """
        tenant, key, command_id = name
        loop = asyncio.get_running_loop()
        for offset in candidates:
            recorded = self._unrecorded.get(offset)
            if recorded is None:
                recorded = await loop.run_in_executor(self._threads, self._read, offset)
            if recorded is None:
                continue
            command = recorded.command
            if (command.tenant, command.id) == (tenant, command_id) and key in ("", command.key):
                return recorded
            brought = self._carried(recorded, name)
            if brought is not None:
                return brought
        return None

    def _read(self, offset: int) -> Recorded | None:
        found = self._reader.find(offset)
        if found is None:
            return None
        header, command, outcome = found
        if outcome is None:
            return None
        return Recorded(command, outcome, Epoch(header.epoch), Instant(header.time))


class OffsetWaiters:
    """Reads that wait until a command was executed (``min_offset``), or its outcome recorded."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waiting: dict[asyncio.Future[None], int] = {}
        """The offset that each one waits for."""

    async def wait(self, offset: int, applied_end: int) -> None:
        """Return once `offset` is executed.  Raises `EngineError` WAIT_TIMEOUT."""
        if applied_end > offset:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = offset
        try:
            await asyncio.wait_for(future, self._wait_s)
        except TimeoutError:
            raise EngineError(
                f"offset {offset} was not reached within {self._wait_s} s",
                code="WAIT_TIMEOUT",
                retry_after_s=1.0,
            ) from None
        finally:
            # Not left to ``reached``, which a shard at rest does not call.
            self._waiting.pop(future, None)

    def reached(self, applied_end: int) -> None:
        """Wake the reads whose offset is executed now."""
        if not self._waiting:
            return
        for future, offset in self._waiting.items():
            if offset < applied_end and not future.done():
                future.set_result(None)
