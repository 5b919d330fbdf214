"""The sandbox: what domain code calls is refused by any name it goes by, before it happens."""

# ruff: noqa: PLW0108  (each act is a lambda, so that its place in this file can be checked)

import _thread
import contextlib
import copy
import datetime as dt
import gc
import json
import os
import random
import secrets
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from time import monotonic as another_name
from typing import Any

import msgspec
import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.context import CommandContext
from ultraengine.execution.layouts import HashLayout, LayoutDomain
from ultraengine.model.domain import Accepted, CommandSpec, Domain, QuerySpec
from ultraengine.model.ids import ShardId
from ultraengine.model.outcome import Status
from ultraengine.testing import refusal
from ultraengine.testing.memory import Bench, MemoryHistory
from ultraengine.testing.refusal import Advice, Refused
from ultraengine.testing.sandbox import Sandbox, in_sandbox, sandboxed


class OwnDatetime(dt.datetime):
    """A subclass does not get away."""


REFUSED: list[tuple[str, Callable[[], object], Advice]] = [
    ("time.time()", lambda: time.time(), refusal.CLOCK),
    ("time.monotonic()", lambda: another_name(), refusal.CLOCK),
    ("time.sleep()", lambda: time.sleep(0), refusal.CLOCK),
    ("time.strftime()", lambda: time.strftime("%Y"), refusal.CLOCK),
    ("datetime.now()", lambda: dt.datetime.now(dt.UTC), refusal.CLOCK),
    ("OwnDatetime.now()", lambda: OwnDatetime.now(dt.UTC), refusal.CLOCK),
    ("date.today()", lambda: dt.date.today(), refusal.CLOCK),  # noqa: DTZ011  (the point)
    ("Random.random()", lambda: random.random(), refusal.CHANCE),
    ("Random.getrandbits()", lambda: random.randint(1, 6), refusal.CHANCE),
    ("Random.getrandbits()", lambda: random.shuffle([1, 2, 3]), refusal.CHANCE),
    ("random.Random()", lambda: Random(), refusal.CHANCE),
    ("os.urandom()", lambda: os.urandom(8), refusal.CHANCE),
    ("os.urandom()", lambda: secrets.token_hex(), refusal.CHANCE),
    ("uuid.uuid4()", lambda: uuid.uuid4(), refusal.IDENTITY),
    ("uuid.uuid1()", lambda: uuid.uuid1(), refusal.IDENTITY),
    ("os._Environ.__getitem__()", lambda: os.environ.get("HOME"), refusal.ENVIRONMENT),
    ("os._Environ.__getitem__()", lambda: "HOME" in os.environ, refusal.ENVIRONMENT),
    ("os.getenv()", lambda: os.getenv("HOME"), refusal.ENVIRONMENT),
    ("os.getpid()", lambda: os.getpid(), refusal.ENVIRONMENT),
    (f"open('{__file__}')", lambda: Path(__file__).read_text(), refusal.WORLD),
    ("os.listdir", lambda: list(Path().iterdir()), refusal.WORLD),
    ("os.stat()", lambda: Path("x").exists(), refusal.WORLD),
    ("os.mkdir", lambda: Path("never-made").mkdir(), refusal.WORLD),
    ("socket.__new__", lambda: socket.socket(), refusal.WORLD),
    ("subprocess.Popen", lambda: subprocess.run(["true"], check=True), refusal.WORLD),
    ("threading.Thread.__init__()", lambda: threading.Thread(target=int), refusal.THREADS),
    ("threading.Thread.__init__()", lambda: threading.Timer(1, int), refusal.THREADS),
    ("_thread.start_new_thread()", lambda: _thread.start_new_thread(int, ()), refusal.THREADS),
    ("print()", lambda: print("x"), refusal.OUTPUT),  # noqa: T201  (the point)
    ("hash()", lambda: hash("a"), refusal.HASHES),
    ("id()", lambda: id("a"), refusal.ADDRESSES),
    ("import of wave", lambda: __import__("wave"), refusal.LATE_IMPORT),
]

RIGHT: list[Callable[[], object]] = [
    lambda: Random(5).random(),
    lambda: Random("seed").shuffle([1, 2, 3]),
    lambda: copy.deepcopy([[1], {"a": 2}]),
    lambda: json.loads(json.dumps({"a": [1.5]})),
    lambda: msgspec.msgpack.encode(HashLayout(str, int).changed.copy()),
    lambda: dt.datetime.strptime("2026-01-01 +0000", "%Y-%m-%d %z"),
    lambda: dt.datetime.fromtimestamp(5, tz=dt.UTC).isoformat(),
    lambda: uuid.UUID(int=5),
    lambda: sorted({"b", "a"}),
]


@pytest.mark.parametrize(("what", "act", "advice"), REFUSED, ids=[part[0] for part in REFUSED])
def test_what_a_replay_cannot_repeat_is_refused(
    what: str, act: Callable[[], object], advice: Advice
) -> None:
    with pytest.raises(Refused) as refused, Sandbox():
        act()
    finding = refused.value.finding
    assert (finding.what, finding.advice) == (what, advice)
    assert (finding.path, finding.within) == (__file__, "<lambda>")
    assert finding.line == act.__code__.co_firstlineno


@pytest.mark.parametrize("act", RIGHT)
def test_what_a_replay_can_repeat_is_let_through(act: Callable[[], object]) -> None:
    with Sandbox() as sandbox:
        act()
    assert sandbox.findings == []


def test_a_refused_call_does_not_happen(tmp_path: Path) -> None:
    path = tmp_path / "never"
    with pytest.raises(Refused), Sandbox():
        path.write_text("x")
    assert not path.exists()


def test_after_a_sandbox_everything_is_allowed_again() -> None:
    with pytest.raises(Refused), Sandbox():
        time.time()
    with Sandbox():
        pass
    assert time.time() > 0
    assert os.getpid() > 0
    assert Path(__file__).exists()


def test_a_refusal_that_was_swallowed_is_raised_at_the_end() -> None:
    def swallow() -> None:
        with contextlib.suppress(Exception):
            time.time()

    with pytest.raises(Refused, match=r"time\.time\(\) reads a clock"), Sandbox():
        swallow()


def test_another_error_after_a_swallowed_refusal_does_not_hide_it() -> None:
    def swallow() -> None:
        with contextlib.suppress(Refused):
            time.time()
        raise KeyError("x")

    with pytest.raises(Refused) as refused, Sandbox():
        swallow()
    assert isinstance(refused.value.__cause__, KeyError)


def test_an_error_of_the_code_itself_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), Sandbox():
        divmod(1, 0)


def test_the_end_of_an_inner_sandbox_does_not_end_the_outer_one() -> None:
    def nested() -> None:
        with Sandbox():
            pass
        time.time()

    with pytest.raises(Refused), Sandbox():
        nested()


def test_what_is_swallowed_in_an_inner_sandbox_is_raised_at_the_end_of_the_outer_one() -> None:
    def nested() -> None:
        with contextlib.suppress(Refused), Sandbox():
            time.time()

    with pytest.raises(Refused), Sandbox():
        nested()


def test_other_threads_are_not_in_the_sandbox() -> None:
    go, done, seen = threading.Event(), threading.Event(), list[float]()

    def work() -> None:
        go.wait(10)
        seen.append(time.time())
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    with Sandbox():
        go.set()
        while not done.is_set():
            pass
    thread.join()
    assert len(seen) == 1


def test_what_hangs_on_a_collection_does_not_run_in_the_sandbox() -> None:
    calls = list[float]()

    def on_collection(_phase: str, _info: dict[str, int]) -> None:
        calls.append(time.time())

    gc.callbacks.append(on_collection)
    try:
        with Sandbox():
            rings: list[Any] = [[] for _ in range(100_000)]
            for ring in rings:
                ring.append(ring)
        inside = len(calls)
        gc.collect()
    finally:
        gc.callbacks.remove(on_collection)
    assert inside == 0
    assert len(calls) > 0
    assert gc.isenabled()


def test_a_function_in_a_sandbox_keeps_its_result_and_its_generator_is_read_inside() -> None:
    @in_sandbox
    def add(one: int, two: int) -> int:
        return one + two

    @in_sandbox
    def late() -> Iterator[float]:
        yield 1.0
        yield time.time()

    assert add(1, 2) == 3
    assert add.__name__ == "add"
    with pytest.raises(Refused):
        late()


def test_the_engines_own_context_may_do_what_domains_may_not() -> None:
    context = CommandContext(ShardId(0), MemoryHistory([]).view("x", lambda: 0))
    with Sandbox():
        first = context.random.random(), context.new_id()
    context.renew()
    assert (context.random.random(), context.new_id()) == first


class Event(msgspec.Struct, array_like=True, tag="event"):
    """An event."""

    value: int


class Data(msgspec.Struct, forbid_unknown_fields=True):
    """A command's data."""

    reach: str = ""


def _reach(data: Data, where: str) -> None:
    if data.reach == where:
        time.time()


class Reaching(LayoutDomain):
    """A domain that reaches for the clock in the function that it is told to."""

    name = "reaching"
    events = Event

    def __init__(self) -> None:
        self.reach = ""
        self.commands = (
            CommandSpec(name="do", data=Data, prepare=self.prepare, decide=self.decide),
        )
        self.queries = (
            QuerySpec(
                path="{key}",
                params=Data,
                result=dict[str, int],
                summary="",
                capture=lambda _state, _tenant, _key, data: _reach(data, "capture"),
                render=lambda _captured, data, _history: _reach(data, "render"),
            ),
        )

    def new_state(self) -> HashLayout[str, int]:
        return HashLayout(str, int)

    def prepare(self, data: Data) -> Data:
        _reach(data, "prepare")
        return data

    def decide(self, _state: Any, data: Data, _context: Any) -> Accepted:
        _reach(data, "decide")
        return Accepted((Event(1),))

    def evolve(self, state: Any, event: Event, at: Any) -> None:
        _reach(Data(self.reach), "evolve")
        state.put(at.key, event.value)

    def check(self, state: Any) -> Sequence[str]:
        _reach(Data(self.reach), "check")
        return super().check(state)


def test_a_sandboxed_domain_behaves_like_the_domain() -> None:
    plain, inside = Bench(DOMAIN), Bench(sandboxed(DOMAIN))
    for bench in (plain, inside):
        for delta in (1, 5, -9):
            bench.run("counter.add", {"delta": delta, "minimum": 0})
    assert inside.dump() == plain.dump()
    assert [outcome for _, outcome, _ in inside.log] == [outcome for _, outcome, _ in plain.log]
    assert inside.replayed().dump() == plain.dump()


def test_every_function_of_a_sandboxed_domain_is_in_a_sandbox() -> None:
    reaching = Reaching()
    domain: Domain = sandboxed(reaching)
    (spec,), (query,) = domain.commands, domain.queries
    state = domain.new_state()
    assert spec.prepare is not None
    assert spec.decide is not None
    assert query.render is not None
    with pytest.raises(Refused):
        spec.prepare(Data("prepare"))
    with pytest.raises(Refused):
        query.capture(state, "t", "k", Data("capture"))
    with pytest.raises(Refused):
        query.render(None, Data("render"), MemoryHistory([]).view("x", lambda: 0))
    context = CommandContext(ShardId(0), MemoryHistory([]).view("x", lambda: 0))
    with pytest.raises(Refused):
        spec.decide(state, Data("decide"), context)
    reaching.reach = "check"
    with pytest.raises(Refused):
        domain.check(state)


def test_a_refusal_in_decide_is_an_internal_error_that_names_it() -> None:
    executed = Bench(sandboxed(Reaching())).run("reaching.do", {"reach": "decide"})
    assert executed.outcome.status == Status.INTERNAL
    assert isinstance(executed.error, Refused)
