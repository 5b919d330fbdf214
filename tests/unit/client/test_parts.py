"""The pure parts of the client: ids, waits, the order in which commands leave, answers."""

import asyncio
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.client.backoff import Backoff
from ultraengine.client.ids import IdSource
from ultraengine.client.lane import Lane
from ultraengine.client.pending import Pending
from ultraengine.client.wire import (
    BadAnswer,
    Credit,
    Event,
    Fault,
    GoAway,
    Hello,
    decode_replies,
    is_retryable,
    is_uncertain,
    parse_seconds,
    read_problem,
    sort_frame,
)
from ultraengine.model.reply import Reply, ReplyError


class StandingClock:
    """A clock that says what it is told."""

    def __init__(self, *times: int) -> None:
        self.times = list(times)

    def __call__(self) -> int:
        return self.times.pop(0) if len(self.times) > 1 else self.times[0]


def zeros(length: int) -> bytes:
    return bytes(length)


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    made = uuid.UUID(IdSource(StandingClock(1_700_000_000_123_456_789), zeros).next())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123
    assert made.int >> 64 & 0xFFF == (456_789 << 12) // 1_000_000


@given(st.lists(st.integers(min_value=0, max_value=2**62), min_size=1, max_size=50))
def test_ids_increase_whatever_the_clock_does(times: list[int]) -> None:
    source = IdSource(StandingClock(*times), zeros)
    made = [source.next() for _ in range(2 * len(times))]
    assert made == sorted(set(made))


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 100))
def test_a_wait_is_within_its_bound_and_never_before_retry_after(
    attempts: int, chance: float, retry_after_s: float
) -> None:
    backoff = Backoff(base_s=0.1, cap_s=2.0)
    assert 0 <= backoff.delay_s(attempts, chance) <= min(2.0, 0.1 * 2.0 ** min(attempts - 1, 40))
    assert retry_after_s <= backoff.delay_s(attempts, chance, retry_after_s) <= retry_after_s + 0.1


def test_waits_double_up_to_the_cap() -> None:
    backoff = Backoff(base_s=1.0, cap_s=5.0)
    assert [backoff.delay_s(attempts, 0.5) for attempts in range(1, 6)] == [0.5, 1, 2, 2.5, 2.5]


class Bench:
    """A lane and commands for it."""

    def __init__(self, **limits: int) -> None:
        self.lane = Lane(**{"commands_max": 10, "bytes_max": 1_000, **limits})
        self.loop = asyncio.new_event_loop()
        self.sequence = 0

    def command(self, key: str = "k", *, name: str = "", size: int = 1) -> Pending:
        self.sequence += 1
        return Pending(
            sequence=self.sequence,
            id=name or str(self.sequence),
            key=key,
            encoded=bytes(size),
            future=self.loop.create_future(),
        )

    def add(self, *keys: str) -> list[Pending]:
        made = [self.command(key) for key in keys]
        for pending in made:
            self.lane.add(pending)
        return made


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.loop.close()
    return made


def test_a_batch_ends_at_its_count_and_at_its_bytes(bench: Bench) -> None:
    bench.lane = Lane(commands_max=3, bytes_max=10)
    for size in (1, 1, 1, 9, 1, 1, 50, 1):
        bench.lane.add(bench.command(size=size))
    sizes = []
    while batch := bench.lane.take(0.0):
        sizes.append([len(pending.encoded) for pending in batch])
    assert sizes == [[1, 1, 1], [9, 1], [1], [50], [1]]


def test_limits_only_shrink_and_never_below_one(bench: Bench) -> None:
    bench.add("k", "k", "k")
    bench.lane.limit_batches(0)
    bench.lane.limit_batches(100)
    assert len(bench.lane.take(0.0)) == 1


def test_a_transport_may_ask_for_fewer(bench: Bench) -> None:
    bench.add("k", "k", "k")
    assert len(bench.lane.take(0.0, count_max=2)) == 2


def test_settled_commands_do_not_leave(bench: Bench) -> None:
    first, second = bench.add("k", "k")
    first.finish(Reply(id="1", outcome="accepted"))
    assert bench.lane.take(0.0) == [second]


def test_a_busy_id_stops_the_batch_before_it(bench: Bench) -> None:
    one, two = bench.command("a", name="x"), bench.command("b", name="x")
    for pending in (one, two):
        bench.lane.add(pending)
    assert bench.lane.take(0.0) == [one]
    assert bench.lane.take(0.0, busy={"x"}) == []
    assert bench.lane.take(0.0) == [two]


def test_what_is_put_back_returns_to_its_place(bench: Bench) -> None:
    made = bench.add("a", "b", "a")
    taken = bench.lane.take(0.0, count_max=2)
    later = bench.add("b")
    bench.lane.put_back(reversed(taken))
    assert bench.lane.take(0.0) == [*made, *later]


def test_a_parked_key_waits_with_everything_behind_it(bench: Bench) -> None:
    a1, b1, a2 = bench.add("a", "b", "a")
    assert bench.lane.take(0.0, count_max=1) == [a1]
    bench.lane.park([a1], until=5.0)
    (a3,) = bench.add("a")
    assert bench.lane.wake_at() == 5.0
    assert bench.lane.take(4.9) == [b1]
    assert bench.lane.take(5.0) == [a1, a2, a3]
    assert bench.lane.wake_at() is None


def test_a_key_parked_twice_waits_for_the_later_time(bench: Bench) -> None:
    one, two = bench.add("a", "a")
    bench.lane.take(0.0)
    bench.lane.park([two], until=9.0)
    bench.lane.park([one], until=5.0)
    assert bench.lane.take(5.0) == []
    assert bench.lane.take(9.0) == [one, two]


def test_what_is_put_back_for_a_parked_key_waits_with_it_in_order(bench: Bench) -> None:
    one, two = bench.add("a", "a")
    bench.lane.take(0.0)
    bench.lane.park([one], until=5.0)
    (three,) = bench.add("a")
    bench.lane.put_back([two])
    assert bench.lane.ready_count == 0
    assert bench.lane.take(5.0) == [one, two, three]


def test_draining_returns_everything_in_order(bench: Bench) -> None:
    made = bench.add("a", "b", "a", "c")
    bench.lane.take(0.0, count_max=1)
    bench.lane.park([made[0]], until=5.0)
    assert bench.lane.drain() == made
    assert bench.lane.drain() == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abc")),
            st.tuples(st.just("take"), st.integers(1, 4)),
            st.tuples(st.just("back"), st.integers(0, 3)),
            st.tuples(st.just("park"), st.integers(0, 9)),
            st.tuples(st.just("wait"), st.integers(1, 5)),
        ),
        max_size=60,
    )
)
def test_any_history_sends_every_command_once_and_each_key_in_order(
    steps: list[tuple[str, object]],
) -> None:
    bench = Bench()
    now = 0.0
    added: list[Pending] = []
    out: list[Pending] = []
    answered: list[Pending] = []
    for step, value in steps:
        if step == "add":
            added += bench.add(str(value))
        elif step == "take" and not out:
            out = bench.lane.take(now, count_max=int(str(value)))
        elif step == "back":
            kept = int(str(value))
            answered += out[:kept]
            bench.lane.put_back(out[kept:])
            out = []
        elif step == "park" and out:
            # The engine refuses a key from some command on, and takes all others.
            key = out[-1].key
            refused = [pending for pending in out if pending.key == key]
            answered += [pending for pending in out if pending.key != key]
            bench.lane.park(refused, now + int(str(value)))
            out = []
        elif step == "wait":
            now += int(str(value))
    answered += out
    while batch := bench.lane.take(1e9):
        answered += batch
    bench.loop.close()
    assert sorted(answered, key=lambda pending: pending.sequence) == added
    for key in "abc":
        order = [pending.sequence for pending in answered if pending.key == key]
        assert order == sorted(order)


def body(**members: object) -> bytes:
    return msgspec.json.encode(members)


def test_a_known_problem_says_whether_it_may_be_tried_again() -> None:
    busy = read_problem(429, body(code="OVERLOADED", detail="full"), "3")
    assert (busy.retryable, busy.certain, busy.error.retry_after_s) == (True, True, 3.0)
    assert busy.error.detail == "full"
    wrong = read_problem(400, body(code="MALFORMED", pointer="/data"), None)
    assert (wrong.retryable, wrong.certain, wrong.error.pointer) == (False, True, "/data")
    assert wrong.error.advice
    unknown = read_problem(504, body(code="OUTCOME_UNKNOWN"), None)
    assert (unknown.retryable, unknown.certain) == (True, False)
    ours = read_problem(500, body(code="INTERNAL"), None)
    assert (ours.retryable, ours.certain) == (False, False)


def test_the_body_of_a_problem_wins_over_the_header() -> None:
    found = read_problem(503, body(code="PAUSED", retry_after_s=0.5), "9")
    assert found.error.retry_after_s == 0.5


def test_an_unknown_problem_is_judged_by_its_status_and_its_own_word() -> None:
    assert read_problem(502, b"<html>", None).retryable
    assert not read_problem(502, b"<html>", None).certain
    assert not read_problem(404, b"<html>", None).retryable
    assert read_problem(404, b"<html>", None).error.code == "HTTP_404"
    told = read_problem(418, body(code="NEW", retryable=True, title="a teapot"), None)
    assert (told.retryable, told.error.code, told.error.detail) == (True, "NEW", "a teapot")


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5.0), (" 0 ", 0.0), (None, None), ("Wed, 21 Oct", None)]
)
def test_retry_after_is_read_in_seconds(text: str | None, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds


def test_answers_that_are_no_replies_are_noticed() -> None:
    encode = msgspec.msgpack.encode
    one = Reply(id="a", outcome="accepted")
    assert decode_replies(encode([one]), 1) == [one]
    with pytest.raises(BadAnswer, match="1 replies to 2 commands"):
        decode_replies(encode([one]), 2)
    with pytest.raises(BadAnswer, match="not an array"):
        decode_replies(encode({"id": "a"}), 1)
    with pytest.raises(BadAnswer, match="not an array"):
        decode_replies(b"\xc1", 1)


def test_a_frame_of_a_stream_is_sorted_into_replies_and_notices() -> None:
    one = Reply(id="a", outcome="accepted")
    frame = [one, {"op": "credit", "n": 3}, {"op": "event", "offset": 9}]
    assert sort_frame(msgspec.msgpack.encode(frame)) == ([one], [Credit(3), Event()])
    assert sort_frame('{"op": "hello", "credit": 5, "shard_map_version": 0}') == (
        [],
        [Hello(credit=5)],
    )
    assert sort_frame('{"op": "goaway", "retry_after": 2, "resume": null}')[1] == [GoAway(2.0)]
    assert sort_frame('{"op": "error", "code": "MALFORMED"}')[1] == [Fault("MALFORMED")]
    for bad in (b"\xc1", msgspec.msgpack.encode([7]), '{"op": "new"}', '{"op": "hello"}'):
        with pytest.raises(BadAnswer):
            sort_frame(bad)


def test_only_refusals_with_a_retryable_code_ask_for_another_attempt() -> None:
    def refused(code: str) -> Reply:
        return Reply(id="a", outcome="refused", error=ReplyError(code, ""))

    unknown = Reply(id="a", outcome="unknown", error=ReplyError("OUTCOME_UNKNOWN", ""))
    assert is_retryable(unknown)
    assert is_uncertain(unknown)
    assert is_uncertain(refused("OUTCOME_UNKNOWN"))
    assert is_uncertain(Reply(id="a", outcome="unknown"))
    assert not is_uncertain(refused("OVERLOADED"))
    assert not is_uncertain(Reply(id="a", outcome="refused"))
    assert not is_uncertain(Reply(id="a", outcome="accepted"))
    assert is_retryable(refused("OVERLOADED"))
    assert not is_retryable(refused("MALFORMED"))
    assert not is_retryable(refused("unheard_of"))
    assert not is_retryable(Reply(id="a", outcome="refused"))
    assert not is_retryable(Reply(id="a", outcome="rejected", error=ReplyError("OVERLOADED", "")))
