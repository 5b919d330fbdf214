"""The adjacency layout: edges between nodes that exist, walks in one order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.execution.layouts import AdjacencyLayout, Walk

Graph = AdjacencyLayout[str, int, int]


def _graph(nodes: str, *edges: str) -> Graph:
    graph: Graph = AdjacencyLayout(str, int, int)
    for number, node in enumerate(nodes):
        graph.put(node, number)
    for number, edge in enumerate(edges):
        graph.link(edge[0], edge[1], number)
    return graph


@pytest.mark.parametrize("edge", ["ax", "xa", "xy"])
def test_an_edge_needs_both_its_nodes(edge: str) -> None:
    graph = _graph("ab")
    with pytest.raises(KeyError):
        graph.link(edge[0], edge[1], 1)
    assert list(graph.edges()) == []
    assert graph.changed_edges == set()


def test_neighbours_come_in_ascending_order_however_they_were_linked() -> None:
    for edges in (("ad", "ab", "ac", "ba", "ca", "aa"), ("aa", "ca", "ba", "ac", "ab", "ad")):
        graph = _graph("dcba", *edges)
        assert list(graph.successors("a")) == ["a", "b", "c", "d"]
        assert list(graph.predecessors("a")) == ["a", "b", "c"]
    assert list(graph.successors("x")) == []
    assert list(graph.predecessors("x")) == []


def test_linking_again_replaces_the_edge() -> None:
    graph = _graph("ab", "ab", "ab", "ab")
    assert graph.edge("a", "b") == 2
    assert list(graph.edges()) == [(("a", "b"), 2)]
    assert list(graph.predecessors("b")) == ["a"]


def test_an_edge_that_is_not_there_is_none_and_unlinking_it_is_no_change() -> None:
    graph = _graph("ab", "ab")
    graph.mark()
    assert graph.edge("b", "a") is None
    assert graph.edge("x", "a") is None
    graph.unlink("b", "a")
    graph.unlink("x", "a")
    assert list(graph.changes()) == []
    graph.unlink("a", "b")
    assert graph.edge("a", "b") is None
    assert list(graph.changes()) != []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abcd"), st.just("")),
            st.tuples(st.just("remove"), st.sampled_from("abcd"), st.just("")),
            st.tuples(
                st.sampled_from(["link", "unlink"]),
                st.sampled_from("abcd"),
                st.sampled_from("abcd"),
            ),
        ),
        max_size=60,
    )
)
def test_removing_a_node_removes_its_edges_and_no_others(steps: list[tuple[str, str, str]]) -> None:
    graph = _graph("")
    nodes: set[str] = set()
    edges: set[tuple[str, str]] = set()
    for verb, source, target in steps:
        if verb == "put":
            graph.put(source, 1)
            nodes.add(source)
        elif verb == "remove":
            graph.remove(source)
            nodes.discard(source)
            edges = {edge for edge in edges if source not in edge}
        elif verb == "unlink":
            graph.unlink(source, target)
            edges.discard((source, target))
        elif {source, target} <= nodes:
            graph.link(source, target, 1)
            edges.add((source, target))
        assert [key for key, _ in graph.items()] == sorted(nodes)
        assert [edge for edge, _ in graph.edges()] == sorted(edges)
        for node in "abcd":
            assert list(graph.successors(node)) == sorted(t for s, t in edges if s == node)
            assert list(graph.predecessors(node)) == sorted(s for s, t in edges if t == node)


def test_a_walk_goes_by_distance_then_by_ascending_neighbours() -> None:
    graph = _graph("abcdefg", "ac", "ab", "bf", "bd", "ce", "cd", "ea", "gg")
    walk = graph.walk("a", depth_max=5, nodes_max=100)
    assert walk == Walk([("a", 0), ("b", 1), ("c", 1), ("d", 2), ("f", 2), ("e", 2)], complete=True)


def test_a_walk_stops_at_its_depth_and_is_complete_within_it() -> None:
    graph = _graph("abcd", "ab", "bc", "cd")
    assert graph.walk("a", depth_max=2, nodes_max=100) == Walk(
        [("a", 0), ("b", 1), ("c", 2)], complete=True
    )
    assert graph.walk("a", depth_max=0, nodes_max=100) == Walk([("a", 0)], complete=True)


def test_a_walk_that_meets_its_bound_says_so() -> None:
    graph = _graph("abcd", "ab", "ac", "ad", "ba")
    assert graph.walk("a", depth_max=5, nodes_max=3) == Walk(
        [("a", 0), ("b", 1), ("c", 1)], complete=False
    )
    assert graph.walk("a", depth_max=5, nodes_max=4).complete
    assert graph.walk("x", depth_max=5, nodes_max=3) == Walk([], complete=True)


def test_a_node_that_came_back_brings_none_of_its_old_edges() -> None:
    graph = _graph("abc", "ab", "ba", "bc")
    restored = _graph("")
    for chunk in graph.dump():
        restored.load(chunk)
    graph.mark()
    graph.remove("b")
    graph.put("b", 7)
    graph.link("b", "c", 8)
    for chunk in graph.changes():
        restored.load(chunk)
    assert list(restored.items()) == [("a", 0), ("b", 7), ("c", 2)]
    assert list(restored.edges()) == [(("b", "c"), 8)]


def test_an_edge_loaded_before_its_nodes_is_refused() -> None:
    graph = _graph("ab", "ab")
    graph.mark()
    graph.link("a", "b", 5)
    with pytest.raises(KeyError):
        _graph("").load(next(graph.changes()))


def test_a_node_mutated_in_place_and_touched_is_written() -> None:
    graph: AdjacencyLayout[str, list[int], int] = AdjacencyLayout(str, list[int], int)
    restored: AdjacencyLayout[str, list[int], int] = AdjacencyLayout(str, list[int], int)
    for node in "ab":
        graph.put(node, [1])
    for chunk in graph.dump():
        restored.load(chunk)
    graph.mark()
    value = graph.get("a")
    assert value is not None
    value.append(2)
    assert list(graph.changes()) == []
    graph.touch("a")
    for chunk in graph.changes():
        restored.load(chunk)
    assert list(restored.items()) == [("a", [1, 2]), ("b", [1])]
