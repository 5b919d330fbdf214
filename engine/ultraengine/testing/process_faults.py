"""Runs a program that keeps things durable, hurts it from outside, and asks what is left.

The program is a parameter.  It takes ``append DATA JOURNAL`` and ``verify DATA JOURNAL``:

* ``append`` works until it is told to stop (SIGTERM) and writes one line per fact to the
  journal, on a disk that is not hurt: ``I <name> <digest>`` before something is handed in,
  ``A <name> <digest>`` when it is acknowledged, ``R`` when it turned read-only, ``W`` when it
  takes things again;
* ``verify`` recovers and compares with the journal.

Exit codes: 0 as asked; 1 a promise is broken; 3 it cannot start; 4 it failed while running.
With 3 and 4 it says why on standard error.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

BROKEN_PROMISE: Final = 1
CANNOT_START: Final = 3
FAILED: Final = 4
PATIENCE_S: Final = 60.0
"""How long anything may take on a busy machine before it counts as hanging."""
_LOOK_EVERY_S: Final = 0.01


class Verdict(msgspec.Struct, frozen=True):
    """How a program ended."""

    code: int
    """Negative: the number of the signal that ended it."""
    text: str
    """Its standard output and error."""


class Running:
    """A program at work, with everything that it started."""

    def __init__(self, process: "subprocess.Popen[bytes]", journal: Path, output: Path) -> None:
        self._process = process
        self._journal = journal
        self._output = output

    def facts(self, kind: str) -> int:
        """Lines of this kind in the journal, of this run and of earlier ones."""
        if not self._journal.exists():
            return 0
        return sum(line.startswith(kind) for line in self._journal.read_text().splitlines())

    def wait_for(self, kind: str, more: int) -> None:
        """Wait for `more` further lines of this kind.

        Raises AssertionError when the program ends before, or after a minute.
        """
        self.wait_until(kind, self.facts(kind) + more)

    def wait_until(self, kind: str, count: int) -> None:
        """Wait until the journal has `count` lines of this kind; raises like `wait_for`."""
        self._wait(lambda: self.facts(kind) >= count, f"{count} lines {kind}")

    def stop(self) -> Verdict:
        """SIGTERM to all of its processes, and wait for the end."""
        os.killpg(self._process.pid, signal.SIGTERM)
        return self.ended()

    def kill(self) -> Verdict:
        """SIGKILL to all of its processes."""
        self._kill_all()
        return self.ended()

    def ended(self) -> Verdict:
        """Wait for the end, and end what it leaves.  Raises AssertionError after a minute."""
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._kill_all()
            self._process.wait()
            raise AssertionError(f"it did not end: {self._text()}") from None
        self._kill_all()
        return Verdict(code, self._text())

    def discard(self) -> None:
        """End it if it still runs."""
        self.kill()

    def _kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # The whole group has ended.
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self._process.poll() is not None and not condition():
                raise AssertionError(f"it ended before {what}: {self.ended()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} in {PATIENCE_S} s: {self._text()}")
            time.sleep(_LOOK_EVERY_S)

    def _text(self) -> str:
        return self._output.read_text(errors="replace")


class Subject:
    """A program under test: `command` is what comes before ``append`` and ``verify``."""

    def __init__(self, name: str, command: Sequence[str], options: Sequence[str] = ()) -> None:
        self.name = name
        self._command = tuple(command)
        self._options = tuple(options)
        self._started: list[Running] = []

    def with_options(self, *options: str) -> "Subject":
        """The same program with further options."""
        return Subject(self.name, self._command, (*self._options, *options))

    def start(self, data: Path, journal: Path, wrapper: Sequence[str] = ()) -> Running:
        """Start appending.  `wrapper` is a program that runs it, such as strace."""
        output = journal.with_suffix(".out")
        arguments = (*self._command, "append", str(data), str(journal), *self._options)
        with output.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603  (programs of the tests themselves)
                (*wrapper, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(process, journal, output)
        self._started.append(running)
        return running

    def discard(self) -> None:
        """End everything that was started and still runs."""
        while self._started:
            self._started.pop().discard()

    def verify(self, data: Path, journal: Path) -> Verdict:
        """Recover and compare with the journal."""
        arguments = (*self._command, "verify", str(data), str(journal), *self._options)
        done = subprocess.run(  # noqa: S603  (programs of the tests themselves)
            arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return Verdict(done.returncode, done.stdout + done.stderr)


def strace(*injections: str, report: Path) -> tuple[str, ...]:
    """A wrapper that injects faults into system calls, for example
    ``fdatasync:error=EIO:when=3`` (the third call of each thread)."""
    chosen = (option for injection in injections for option in ("-e", f"inject={injection}"))
    calls = ",".join(injection.partition(":")[0] for injection in injections)
    return ("strace", "-f", "-qq", "-o", str(report), "-e", f"trace={calls}", *chosen)
