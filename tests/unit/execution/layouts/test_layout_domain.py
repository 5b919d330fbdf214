"""`LayoutDomain`: several layouts in one slot, schemas, and what a domain need not say."""

import msgspec
import pytest

from ultraengine.execution.layouts import HashLayout, LayoutDomain, SortedLayout
from ultraengine.model.domain import Domain
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant


class Opened(msgspec.Struct, array_like=True, tag="opened"):
    """An event."""

    name: str


class State:
    """Two layouts."""

    def __init__(self) -> None:
        self.names: HashLayout[str, int] = HashLayout(str, int)
        self.queue: SortedLayout[int, str] = SortedLayout(int, str)


class Shop(LayoutDomain):
    """A domain of two layouts."""

    name = "shop"
    commands = ()
    events = Opened

    def new_state(self) -> State:
        return State()

    def parts(self, state: State) -> dict[str, HashLayout[str, int] | SortedLayout[int, str]]:
        return {"names": state.names, "queue": state.queue}


class ShopTwo(Shop):
    """The same, later: the part "names" was called "titles" before schema 2."""

    schema = 2

    def migrate(self, part: str, chunk: bytes, schema: int) -> tuple[str, bytes]:
        assert schema == 1
        return ("names" if part == "titles" else part), chunk


class OldShop(Shop):
    """The domain before."""

    def parts(self, state: State) -> dict[str, HashLayout[str, int] | SortedLayout[int, str]]:
        return {"titles": state.names, "queue": state.queue}


class Single(LayoutDomain):
    """A domain of one layout."""

    name = "single"
    commands = ()
    events = Opened

    def new_state(self) -> HashLayout[str, int]:
        return HashLayout(str, int)


def _filled(domain: Shop) -> State:
    state = domain.new_state()
    state.names.put("a", 1)
    state.queue.put(5, "x")
    return state


def _content(state: State) -> object:
    return list(state.names.items()), list(state.queue.items())


def test_each_part_is_dumped_tracked_and_loaded() -> None:
    domain: Domain = Shop()
    state = _filled(Shop())
    loaded = domain.new_state()
    for chunk in domain.dump(state):
        domain.load(loaded, chunk, 1)
    assert _content(loaded) == ([("a", 1)], [(5, "x")])
    domain.mark(state)
    assert list(domain.changes(state)) == []
    state.names.remove("a")
    state.queue.put(6, "y")
    for chunk in domain.changes(state):
        domain.load(loaded, chunk, 1)
    assert _content(loaded) == ([], [(5, "x"), (6, "y")])


def test_a_chunk_of_an_older_schema_is_migrated() -> None:
    old, new = OldShop(), ShopTwo()
    state = new.new_state()
    for chunk in old.dump(_filled(old)):
        new.load(state, chunk, 1)
    assert _content(state) == ([("a", 1)], [(5, "x")])


def test_a_chunk_of_today_is_not_migrated() -> None:
    new = ShopTwo()
    state = new.new_state()
    for chunk in new.dump(_filled(new)):
        new.load(state, chunk, 2)
    assert _content(state) == ([("a", 1)], [(5, "x")])


def test_a_chunk_from_the_future_is_refused() -> None:
    chunk = next(iter(ShopTwo().dump(_filled(ShopTwo()))))
    with pytest.raises(InvariantBroken, match="not newer than the code"):
        Shop().load(Shop().new_state(), chunk, 2)


def test_a_chunk_of_an_unknown_part_is_refused_by_name() -> None:
    chunk = next(iter(OldShop().dump(_filled(OldShop()))))
    with pytest.raises(InvariantBroken, match="part='titles'"):
        Shop().load(Shop().new_state(), chunk, 1)


def test_a_single_layout_is_the_state() -> None:
    domain = Single()
    state = domain.new_state()
    state.put("a", 1)
    loaded = domain.new_state()
    for chunk in domain.dump(state):
        domain.load(loaded, chunk, 1)
    assert list(loaded.items()) == [("a", 1)]


def test_what_a_domain_need_not_say() -> None:
    domain = Single()
    state = domain.new_state()
    assert domain.focus(state, "t", "k") is state
    assert domain.due(state) is None
    assert list(domain.expire(state, Instant(0), 10)) == []
    assert list(domain.check(state)) == []
    assert (domain.version, domain.schema, list(domain.queries)) == (1, 1, [])
    assert domain.migrate("a", b"b", 1) == ("a", b"b")


def test_what_a_domain_must_say_is_missed() -> None:
    domain = LayoutDomain()
    with pytest.raises(NotImplementedError):
        domain.new_state()
    with pytest.raises(NotImplementedError):
        domain.evolve(None, None, None)
