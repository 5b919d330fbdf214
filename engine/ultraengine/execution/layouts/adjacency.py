"""The adjacency layout: nodes, directed edges between them, bounded traversal.

Every node keeps the keys of its successors and predecessors in ascending order, so that
neighbours and walks come in an order that depends on content alone.  An edge exists only
between nodes that exist; removing a node removes its edges.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from ultraengine.execution.layouts.chunk import K, V, chunk_decoder, generic, write_chunks

E = TypeVar("E")


class Walk(msgspec.Struct, Generic[K], frozen=True):
    """What a bounded traversal found."""

    steps: list[tuple[K, int]]
    """(node, least number of edges from the start), by distance, then in the order in which
    ascending neighbours lead to them; the start is first, at distance 0."""
    complete: bool
    """False when `nodes_max` stopped it: there are more nodes within the depth."""


class Node(Generic[K, V, E]):
    """One node with its edges."""

    __slots__ = ("edges", "predecessors", "successors", "value")

    def __init__(self, value: V) -> None:
        self.value = value
        self.edges: dict[K, E] = {}
        self.successors: list[K] = []
        self.predecessors: list[K] = []


class AdjacencyLayout(Generic[K, V, E]):
    """Implements `model.layout.Layout` for nodes, and keeps the edges between them."""

    __slots__ = ("_decoder", "_dropped", "_nodes", "changed", "changed_edges")

    def __init__(self, key_type: Any, node_type: Any, edge_type: Any) -> None:
        pair = generic(tuple, key_type, key_type)
        self._decoder = chunk_decoder(
            (key_type, generic(tuple, key_type, node_type)),
            (pair, generic(tuple, pair, edge_type)),
        )
        self._nodes: dict[K, Node[K, V, E]] = {}
        self._dropped: set[K] = set()
        """Nodes that were removed since ``mark``, with the edges they had; they may be back."""
        self.changed: set[K] = set()
        """Nodes changed since ``mark``."""
        self.changed_edges: set[tuple[K, K]] = set()
        """Edges changed since ``mark``."""

    def get(self, key: K) -> V | None:
        """The value of a node, None when there is none."""
        node = self._nodes.get(key)
        return None if node is None else node.value

    def put(self, key: K, value: V) -> None:
        """Insert a node, or replace its value and keep its edges; count it as changed."""
        self._store(key, value)
        self.changed.add(key)

    def remove(self, key: K) -> None:
        """Remove a node and all its edges, if it is there, and count it as changed."""
        if self._drop(key):
            self._dropped.add(key)
            self.changed.add(key)

    def touch(self, key: K) -> None:
        """Count a node as changed after its value was mutated in place."""
        self.changed.add(key)

    def link(self, source: K, target: K, edge: E) -> None:
        """Insert or replace the edge from `source` to `target` and count it as changed.

        Raises KeyError unless both nodes are there.
        """
        self._join(source, target, edge)
        self.changed_edges.add((source, target))

    def unlink(self, source: K, target: K) -> None:
        """Remove an edge if it is there, and count it as changed."""
        if self._part(source, target):
            self.changed_edges.add((source, target))

    def touch_edge(self, source: K, target: K) -> None:
        """Count an edge as changed after its value was mutated in place."""
        self.changed_edges.add((source, target))

    def edge(self, source: K, target: K) -> E | None:
        """The value of an edge, None when there is none."""
        node = self._nodes.get(source)
        return None if node is None else node.edges.get(target)

    def successors(self, key: K) -> Sequence[K]:
        """Targets of the edges of a node, ascending; empty without such a node.

        The layout's own list: read it, do not keep it.
        """
        node = self._nodes.get(key)
        return () if node is None else node.successors

    def predecessors(self, key: K) -> Sequence[K]:
        """Sources of the edges to a node, ascending; read it, do not keep it."""
        node = self._nodes.get(key)
        return () if node is None else node.predecessors

    def walk(self, start: K, *, depth_max: int, nodes_max: int) -> Walk[K]:
        """Follow edges breadth first, over `depth_max` edges at most, to `nodes_max` (>= 1) nodes.

        Empty and complete when there is no node `start`.
        """
        if start not in self._nodes:
            return Walk([], complete=True)
        steps = [(start, 0)]
        reached = {start}
        for key, depth in steps:  # grows while it is walked: a queue that keeps what it gave
            if depth == depth_max:
                break
            for target in self._nodes[key].successors:
                if target in reached:
                    continue
                if len(steps) >= nodes_max:
                    return Walk(steps, complete=False)
                reached.add(target)
                steps.append((target, depth + 1))
        return Walk(steps, complete=True)

    def items(self) -> Iterator[tuple[K, V]]:
        """All nodes by ascending key; the layout may not change meanwhile."""
        nodes = self._nodes
        for key in sorted(nodes):
            yield key, nodes[key].value

    def edges(self) -> Iterator[tuple[tuple[K, K], E]]:
        """All edges by ascending (source, target); the layout may not change meanwhile."""
        nodes = self._nodes
        for source in sorted(nodes):
            node = nodes[source]
            for target in node.successors:
                yield (source, target), node.edges[target]

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self._nodes)

    def __contains__(self, key: object) -> bool:
        """Whether the node is there."""
        return key in self._nodes

    def dump(self) -> Iterator[bytes]:
        """All nodes, then all edges, each ascending."""
        return write_chunks(((), self.items(), (), self.edges()))

    def changes(self) -> Iterator[bytes]:
        """What changed since ``mark``: removed and written nodes, removed and written edges.

        A node that was removed and is back stands in both lists of nodes: the first takes its
        old edges away.
        """
        changed = sorted(self.changed)
        nodes = ((key, self._nodes[key].value) for key in changed if key in self._nodes)
        parted: list[tuple[K, K]] = []
        joined: list[tuple[tuple[K, K], E]] = []
        for source, target in sorted(self.changed_edges):
            node = self._nodes.get(source)
            if node is not None and target in node.edges:
                joined.append(((source, target), node.edges[target]))
            else:
                parted.append((source, target))
        return write_chunks((sorted(self._dropped), nodes, parted, joined))

    def mark(self) -> None:
        """Start counting changes anew."""
        self._dropped.clear()
        self.changed.clear()
        self.changed_edges.clear()

    def load(self, chunk: bytes) -> None:
        """Apply one chunk.  Raises `msgspec.ValidationError` when it is of another type, and
        KeyError when it is applied before the chunk that brings an edge's nodes."""
        dropped, nodes, parted, joined = self._decoder.decode(chunk)
        for key in dropped:
            self._drop(key)
        for key, value in nodes:
            self._store(key, value)
        for source, target in parted:
            self._part(source, target)
        for (source, target), edge in joined:
            self._join(source, target, edge)

    def _store(self, key: K, value: V) -> None:
        node = self._nodes.get(key)
        if node is None:
            self._nodes[key] = Node(value)
        else:
            node.value = value

    def _drop(self, key: K) -> bool:
        node = self._nodes.get(key)
        if node is None:
            return False
        _part_all(self._nodes, key, node)
        del self._nodes[key]
        return True

    def _join(self, source: K, target: K, edge: E) -> None:
        node, other = self._nodes[source], self._nodes[target]
        if target not in node.edges:
            insort(node.successors, target)
            insort(other.predecessors, source)
        node.edges[target] = edge

    def _part(self, source: K, target: K) -> bool:
        node = self._nodes.get(source)
        if node is None or target not in node.edges:
            return False
        del node.edges[target]
        _take(node.successors, target)
        _take(self._nodes[target].predecessors, source)
        return True


def _part_all(nodes: dict[K, Node[K, V, E]], key: K, node: Node[K, V, E]) -> None:
    """Remove all edges of a node at their other ends; a loop goes with the node itself."""
    for target in node.successors:
        if target != key:
            _take(nodes[target].predecessors, key)
    for source in node.predecessors:
        if source != key:
            del nodes[source].edges[key]
            _take(nodes[source].successors, key)


def _take(keys: list[K], key: K) -> None:
    del keys[bisect_left(keys, key)]
