"""Routes of reads, their parameters and tags."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import pytest

from ultraengine.edge.routes import matches
from ultraengine.gateway.reads import ReadRoutes, entity_tag, read_request
from ultraengine.model.domain import QuerySpec
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed


class Params(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of all queries here."""

    id: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    closed: bool = False


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A parameter that must be given."""

    since: int


class Number(msgspec.Struct):
    """A path parameter with a type of its own."""

    n: int


def spec(path: str, params: type[msgspec.Struct] = Params, **more: Any) -> QuerySpec:
    return QuerySpec(
        path=path, params=params, result=dict, summary="", capture=lambda *_: None, **more
    )


class Shelf:
    """A domain with queries alone."""

    name = "shelf"

    def __init__(self, *queries: QuerySpec) -> None:
        self.queries: Sequence[QuerySpec] = queries


def routes(*queries: QuerySpec) -> ReadRoutes:
    return ReadRoutes([Shelf(*queries)])  # type: ignore[list-item]


def ask(path: str, params: type[msgspec.Struct], url: str, **query: str) -> Any:
    match = routes(spec(path, params)).find("shelf", url.split("/"))
    assert match is not None
    return read_request(match, list(query.items()))


def test_a_literal_segment_wins_over_a_parameter() -> None:
    table = routes(spec("{key}/{id}"), spec("{key}/summary"), spec("{key}/{id}/rows"))
    for path, found, values in (
        ("k/summary", "{key}/summary", {"key": "k"}),
        ("k/other", "{key}/{id}", {"key": "k", "id": "other"}),
        ("k/summary/rows", "{key}/{id}/rows", {"key": "k", "id": "summary"}),
    ):
        match = table.find("shelf", path.split("/"))
        assert match is not None
        assert (match.route.spec.path, match.path) == (found, values)
    for path in ("k", "k/a/b", "k/a/rows/more"):
        assert table.find("shelf", path.split("/")) is None
    assert table.find("other", ["k", "summary"]) is None
    assert [route.spec.path for route in table.routes] == [
        "{key}/summary",
        "{key}/{id}",
        "{key}/{id}/rows",
    ]


def test_parameters_of_path_and_query_become_the_structs_members() -> None:
    asked = ask(
        "{key}/{id}", Params, "book/a", limit="7", closed="true", min_offset="9", read="follower"
    )
    assert (asked.key, asked.params) == ("book", Params("a", 7, closed=True))
    assert (asked.min_offset, asked.read) == (9, "follower")
    assert ask("{key}", Params, "book").min_offset is None


@pytest.mark.parametrize(
    ("path", "params", "url", "query", "pointer"),
    [
        ("{key}", Params, "b", {"limit": "11"}, "/query/limit"),
        ("{key}", Params, "b", {"limit": "many"}, "/query/limit"),
        ("{key}", Params, "b", {"closed": "perhaps"}, "/query/closed"),
        ("{key}", Wanted, "b", {}, "/query"),
        ("{key}/{n}", Number, "b/x", {}, "/path/n"),
        ("{key}/{id}", Params, "b/a", {"id": "b"}, "/query"),
        ("{key}", Params, "b", {"min_offset": "9" * 19}, "/query/min_offset"),
    ],
)
def test_a_parameter_of_the_wrong_shape_is_named(
    path: str, params: type[msgspec.Struct], url: str, query: dict[str, str], pointer: str
) -> None:
    with pytest.raises(Malformed) as caught:
        ask(path, params, url, **query)
    assert caught.value.pointer == pointer


def test_an_empty_part_of_a_path_names_nothing() -> None:
    with pytest.raises(EngineError) as caught:
        ask("{key}/{id}", Params, "book/")
    assert caught.value.code == "NOT_FOUND"


@pytest.mark.parametrize(
    "query",
    [
        spec("{id}/{key}"),
        spec("accounts"),
        spec("{key}/{other}"),
        spec("{key}", msgspec.defstruct("Greedy", [("read", str)])),
    ],
)
def test_a_query_that_cannot_be_routed_stops_the_start(query: QuerySpec) -> None:
    with pytest.raises(InvariantBroken):
        routes(query)


def test_a_query_without_a_version_of_its_own_has_its_position_as_tag() -> None:
    assert entity_tag(spec("{key}"), {}, 3, 41) == '"3.41"'
    assert entity_tag(spec("{key}", etag=lambda value: value["v"]), {"v": "7"}, 3, 41) == '"7"'


def test_tags_are_compared_weakly() -> None:
    assert matches('W/"7"', '"7"')
    assert matches('"6" , "7"', '"7"')
    assert matches(" * ", '"7"')
    assert not matches('"77"', '"7"')
    assert not matches("7", '"7"')
