"""The pre-joined layout: parents with their children embedded, joined when they are written.

An order with its lines, an account with its open holds: reading a parent with all its
children is one lookup, and ``children`` come as an array by ascending child key.  Children
belong to exactly one parent and go with it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ultraengine.execution.layouts.chunk import K, Ordered, chunk_decoder, generic, write_chunks

P = TypeVar("P")
C = TypeVar("C", bound=Ordered)
D = TypeVar("D")


class Joined(Generic[P, C, D]):
    """A parent and its children."""

    __slots__ = ("_children", "_keys", "parent")

    def __init__(self, parent: P, children: Iterable[tuple[C, D]] = ()) -> None:
        self.parent = parent
        self._keys: list[C] = []
        self._children: list[D] = []
        for key, child in children:
            self.attach(key, child)

    @property
    def keys(self) -> Sequence[C]:
        """Keys of the children, ascending; read it, do not keep it."""
        return self._keys

    @property
    def children(self) -> Sequence[D]:
        """The children by ascending key; read it, do not keep it."""
        return self._children

    def child(self, key: C) -> D | None:
        """One child, None when there is none."""
        if key not in self:
            return None
        return self[key]

    def __getitem__(self, key: C) -> D:
        """One child.  Raises KeyError when there is none."""
        if key not in self:
            raise KeyError(key)
        return self._children[bisect_left(self._keys, key)]

    def __contains__(self, key: C) -> bool:
        """Whether there is such a child."""
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place] == key

    def attach(self, key: C, child: D) -> None:
        """Insert or replace a child.  On a parent that is in a layout, use the layout's."""
        place = bisect_left(self._keys, key)
        if key in self:
            self._children[place] = child
        else:
            self._keys.insert(place, key)
            self._children.insert(place, child)

    def detach(self, key: C) -> bool:
        """Remove a child; whether it was there.  In a layout, use the layout's."""
        if key not in self:
            return False
        place = bisect_left(self._keys, key)
        del self._keys[place]
        del self._children[place]
        return True

    def __eq__(self, other: object) -> bool:
        """Whether parent and children are equal."""
        if not isinstance(other, Joined):
            return NotImplemented
        mine = (self.parent, self._keys, self._children)
        return mine == (other.parent, other._keys, other._children)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        """As the constructor call that makes an equal one."""
        return f"Joined({self.parent!r}, {list(zip(self._keys, self._children, strict=True))!r})"


class PrejoinedLayout(Generic[K, P, C, D]):
    """Implements `model.layout.Layout` with a dict of `Joined`.

    ``put``, ``remove`` and ``touch`` are about a parent with all its children; the other
    methods write one of them, and count only that as changed.
    """

    __slots__ = ("_decoder", "_joined", "_whole", "changed", "changed_children")

    def __init__(
        self, key_type: Any, parent_type: Any, child_key_type: Any, child_type: Any
    ) -> None:
        pair = generic(tuple, key_type, child_key_type)
        self._decoder = chunk_decoder(
            (key_type, generic(tuple, key_type, parent_type)),
            (pair, generic(tuple, pair, child_type)),
        )
        self._joined: dict[K, Joined[P, C, D]] = {}
        self._whole: set[K] = set()
        """Keys whose parent and children are written anew, or removed, since ``mark``."""
        self.changed: set[K] = set()
        """Parents changed since ``mark``, their children apart."""
        self.changed_children: set[tuple[K, C]] = set()
        """Children changed since ``mark``."""

    def get(self, key: K) -> Joined[P, C, D] | None:
        """A parent with its children, None when there is none."""
        return self._joined.get(key)

    def put(self, key: K, value: Joined[P, C, D]) -> None:
        """Insert or replace a parent with all its children; takes `value` over."""
        self._joined[key] = value
        self._whole.add(key)

    def put_parent(self, key: K, parent: P) -> None:
        """Insert a parent without children, or replace it and keep its children."""
        self._store(key, parent)
        self.changed.add(key)

    def remove(self, key: K) -> None:
        """Remove a parent with its children, if it is there."""
        if self._joined.pop(key, None) is not None:
            self._whole.add(key)

    def attach(self, key: K, child_key: C, child: D) -> None:
        """Insert or replace a child.  Raises KeyError without its parent."""
        self._joined[key].attach(child_key, child)
        self.changed_children.add((key, child_key))

    def detach(self, key: K, child_key: C) -> None:
        """Remove a child if it is there."""
        joined = self._joined.get(key)
        if joined is not None and joined.detach(child_key):
            self.changed_children.add((key, child_key))

    def touch(self, key: K) -> None:
        """Count a parent and all its children as changed after a mutation in place."""
        self._whole.add(key)

    def touch_parent(self, key: K) -> None:
        """Count a parent as changed after it was mutated in place."""
        self.changed.add(key)

    def touch_child(self, key: K, child_key: C) -> None:
        """Count a child as changed after it was mutated in place."""
        self.changed_children.add((key, child_key))

    def items(self) -> Iterator[tuple[K, Joined[P, C, D]]]:
        """All parents with their children by ascending key; may not change meanwhile."""
        for key in sorted(self._joined):
            yield key, self._joined[key]

    def __len__(self) -> int:
        """Number of parents."""
        return len(self._joined)

    def __contains__(self, key: object) -> bool:
        """Whether the parent is there."""
        return key in self._joined

    def dump(self) -> Iterator[bytes]:
        """All parents, then all children by (parent key, child key), each ascending."""
        keys = sorted(self._joined)
        parents = ((key, self._joined[key].parent) for key in keys)
        return write_chunks(((), parents, (), self._children_of(keys)))

    def changes(self) -> Iterator[bytes]:
        """What changed since ``mark``; what is written anew is removed first."""
        joined, whole = self._joined, self._whole
        written = sorted(key for key in self.changed | whole if key in joined)
        parents = ((key, joined[key].parent) for key in written)
        detached: list[tuple[K, C]] = []
        attached: list[tuple[tuple[K, C], D]] = []
        for key, child_key in sorted(self.changed_children):
            if key in whole or key not in joined:
                continue
            if child_key in joined[key]:
                attached.append(((key, child_key), joined[key][child_key]))
            else:
                detached.append((key, child_key))
        attached += self._children_of([key for key in written if key in whole])
        attached.sort(key=_key_of)
        return write_chunks((sorted(whole), parents, detached, attached))

    def mark(self) -> None:
        """Start counting changes anew."""
        self._whole.clear()
        self.changed.clear()
        self.changed_children.clear()

    def load(self, chunk: bytes) -> None:
        """Apply one chunk.  Raises `msgspec.ValidationError` when it is of another type, and
        KeyError when it is applied before the chunk that brings a child's parent."""
        removed, parents, detached, attached = self._decoder.decode(chunk)
        for key in removed:
            self._joined.pop(key, None)
        for key, parent in parents:
            self._store(key, parent)
        for key, child_key in detached:
            self._joined[key].detach(child_key)
        for (key, child_key), child in attached:
            self._joined[key].attach(child_key, child)

    def _store(self, key: K, parent: P) -> None:
        joined = self._joined.get(key)
        if joined is None:
            self._joined[key] = Joined(parent)
        else:
            joined.parent = parent

    def _children_of(self, keys: Sequence[K]) -> Iterator[tuple[tuple[K, C], D]]:
        for key in keys:
            joined = self._joined[key]
            for child_key, child in zip(joined.keys, joined.children, strict=True):
                yield (key, child_key), child


def _key_of(entry: tuple[tuple[K, C], D]) -> tuple[K, C]:
    return entry[0]
