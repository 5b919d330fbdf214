"""A server for as long as somebody uses it, whatever it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Server(Protocol):
    """A program with data of its own."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def remove(self) -> None:
        """Stop it and remove its data; also one that never started."""


S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Started, and removed at the end."""
    try:
        server.start()
        yield server
    finally:
        server.remove()
