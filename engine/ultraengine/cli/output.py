"""How commands speak: results on stdout, everything else on stderr.

Results are text for people or JSON for programs (``--output json``).  Long work shows a bar
on a terminal and a plain line every few seconds elsewhere.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self, TextIO

import msgspec

BAR_WIDTH: Final = 28
PLAIN_EVERY_S: Final = 5.0
REDRAW_EVERY_S: Final = 0.1


def hold_standard_descriptors() -> None:
    """Where 0, 1 or 2 were closed at the start, keep them from becoming those of data files."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def tell(text: str) -> None:
    """Print a line for whoever reads along: a serving engine outlives its reader."""
    try:
        print(text, flush=True)
    except OSError:
        # What is left in the buffer would fail again at the end of the process.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_json(value: object, stream: TextIO | None = None) -> None:
    """One JSON document, indented, with a line break at its end."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    print(text.decode(), file=stream or sys.stdout)


def print_json_line(value: object) -> None:
    """One JSON document on one line."""
    print(msgspec.json.encode(value).decode())


def print_table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Rows in columns of their own width; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values in two columns."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"{name.ljust(width)}  {_plain(value)}".rstrip())


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_plain(member)}" for name, member in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(member) for member in value)
    return str(value)


def say(text: str) -> None:
    """One line for people on stderr."""
    print(text, file=sys.stderr)


def plural(count: int, one: str, many: str = "") -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


class Progress:
    """How far long work is.  Use as a context; `update` is cheap and may be called often."""

    def __init__(
        self,
        title: str,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._now = now
        self._started = now()
        self._shown = self._started
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def update(self, done: float, total: float, note: str) -> None:
        """`done` of `total` (any unit), with a note such as a count and a rate."""
        now = self._now()
        wait = REDRAW_EVERY_S if self._terminal else PLAIN_EVERY_S
        if self._quiet or now - self._shown < wait:
            return
        self._shown = now
        share = min(1.0, done / total) if total > 0 else 1.0
        left = (now - self._started) * (1 - share) / share if share > 0 else 0.0
        text = f"{share:4.0%}  {note}  {_duration(left)} left"
        if self._terminal:
            filled = round(share * BAR_WIDTH)
            bar = "#" * filled + "-" * (BAR_WIDTH - filled)
            self._draw(f"{self._title} [{bar}] {text}")
        else:
            print(f"{self._title}: {text}", file=self._stream, flush=True)

    def clear(self) -> None:
        """Remove the bar, so that other lines can be printed."""
        if self._terminal and self._width:
            self._draw("")
            self._width = 0

    def _draw(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._width))
        if not line:
            self._stream.write("\r")
        self._stream.flush()
        self._width = len(line)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
