"""What a domain over layouts need not write itself.

`LayoutDomain` answers the storage half of the Domain Protocol for a domain whose slot state
is one layout, or several by name (``parts``).  A subclass says what is its own: ``name``,
``commands``, ``events``, ``new_state`` and ``evolve``; and, if it has them, queries, timers,
invariants and migrations.

A chunk of a domain is the name of the layout (one length byte, then UTF-8) and that
layout's own chunk.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ultraengine.model.domain import CommandSpec, QuerySpec
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant
from ultraengine.model.layout import Layout


class LayoutDomain:
    """Base class of domains whose state is kept in layouts; see `model.domain.Domain`."""

    name: str
    version: int = 1
    schema: int = 1
    commands: Sequence[CommandSpec]
    events: Any
    queries: Sequence[QuerySpec] = ()
    sends: bool = False
    """Whether its handlers call ``context.send``: then the engine looks for messages."""

    def new_state(self) -> Any:
        """The state of one empty slot: a layout, or whatever ``parts`` can take apart."""
        raise NotImplementedError

    def evolve(self, state: Any, event: Any, at: Any) -> None:
        """Apply one event.  The only mutation; may not fail."""
        raise NotImplementedError

    def parts(self, state: Any) -> Mapping[str, Layout[Any, Any]]:
        """The layouts of a slot state by name, in the order in which they are dumped."""
        return {"": state}

    def migrate(self, part: str, chunk: bytes, schema: int) -> tuple[str, bytes]:
        """The (part, chunk) of today for one that was written under an earlier `schema`.

        Fields appended to a value's struct with a default need nothing.
        """
        del schema
        return part, chunk

    def focus(self, state: Any, tenant: str, key: str) -> Any:
        """Handlers get the whole slot state and look their key up themselves."""
        del tenant, key
        return state

    def dump(self, state: Any) -> Iterator[bytes]:
        """Everything, part by part."""
        for name, part in self.parts(state).items():
            yield from _labelled(name, part.dump())

    def changes(self, state: Any) -> Iterator[bytes]:
        """What changed since ``mark``, part by part."""
        for name, part in self.parts(state).items():
            yield from _labelled(name, part.changes())

    def mark(self, state: Any) -> None:
        """Start counting changes anew."""
        for part in self.parts(state).values():
            part.mark()

    def load(self, state: Any, chunk: bytes, schema: int) -> None:
        """Apply one chunk.  Raises `InvariantBroken` for a schema or a part from the future."""
        end = 1 + chunk[0]
        name, body = chunk[1:end].decode(), chunk[end:]
        if schema > self.schema:
            raise InvariantBroken(
                "a snapshot is not newer than the code", domain=self.name, schema=schema
            )
        if schema < self.schema:
            name, body = self.migrate(name, body, schema)
        part = self.parts(state).get(name)
        if part is None:
            raise InvariantBroken("a chunk names a part of its domain", domain=self.name, part=name)
        part.load(body)

    def due(self, state: Any) -> Instant | None:
        """No timers."""
        del state
        return None

    def expire(self, state: Any, now: Instant, count_max: int) -> Sequence[tuple[str, str, Any]]:
        """No timers."""
        del state, now, count_max
        return ()

    def check(self, state: Any) -> Sequence[str]:
        """No invariants beyond those of the types."""
        del state
        return ()


def _labelled(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    label = name.encode()
    prefix = bytes((len(label),)) + label
    for chunk in chunks:
        yield prefix + chunk
