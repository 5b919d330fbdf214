"""One process of `ultra`, started again whenever it ends, until it is stopped.

It has a pipe as its standard input: when the process that started it is killed, the pipe ends, and
whoever was started with ``end_with_input`` ends too.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from ultraengine.starting.ends import ExitCode
from ultraengine.supervisor.restarts import delay_s, failures_after

_log = structlog.get_logger("supervisor")


class ProcessView(msgspec.Struct, frozen=True):
    """What is known of one process."""

    pid: int | None
    restarts: int
    last_exit: str | None
    """How it ended the last time; None before it did."""


def exit_name(code: int) -> str:
    """An exit code with its meaning."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    try:
        return f"exit code {code} ({ExitCode(code).name})"
    except ValueError:
        return f"exit code {code}"


class ChildProcess:
    """One process, started again whenever it ends."""

    def __init__(
        self,
        kind: str,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        facts: Mapping[str, Any],
    ) -> None:
        """`kind` and `facts` are for the log; `arguments` are those of `ultra`."""
        self._kind = kind
        self._arguments = tuple(arguments)
        self._variables = variables
        self._facts = dict(facts)
        self._process: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._last_exit: int | None = None
        self._stopping = False

    @property
    def view(self) -> ProcessView:
        """What is known of it."""
        running = self._process is not None and self._process.returncode is None
        return ProcessView(
            self._process.pid if running and self._process is not None else None,
            self._restarts,
            None if self._last_exit is None else exit_name(self._last_exit),
        )

    @property
    def last_exit(self) -> int | None:
        """The last exit code; None before it ended once."""
        return self._last_exit

    async def run(self) -> None:
        """Keep it running until `stop`."""
        loop, failures = asyncio.get_running_loop(), 0
        while not self._stopping:
            started = loop.time()
            cause = await self._once()
            if self._stopping:
                return
            failures = failures_after(failures, loop.time() - started)
            delay = delay_s(failures - 1) if failures else 0.0
            self._restarts += 1
            _log.error(f"{self._kind}.ended", cause=cause, starts_again_in_s=delay, **self._facts)
            await asyncio.sleep(delay)

    async def _once(self) -> str:
        """Start it and wait for its end; how it ended."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ultraengine.cli.main", *self._arguments,
                env=dict(self._variables),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the parent's to answer, in its order.
            )  # fmt: skip
        except OSError as error:
            self._last_exit = int(ExitCode.FAILED)
            return f"it cannot be started: {error}"
        self._last_exit = await self._process.wait()
        return exit_name(self._last_exit)

    async def stop(self, wait_s: float) -> None:
        """Let it end by itself (SIGTERM), and kill it after `wait_s`."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(wait_s):
                self._last_exit = await process.wait()
        except TimeoutError:
            _log.error(f"{self._kind}.killed", waited_s=wait_s, **self._facts)
            process.kill()
            self._last_exit = await process.wait()
