"""How late a copy executes is how long the oldest frame that waits has been committed."""

from ultraengine.shard.following.lateness import MARK_S, Lateness


def test_who_has_executed_everything_is_not_late() -> None:
    late = Lateness()
    assert late.seconds(100.0) == 0.0
    late.committed(5, 1.0)
    assert late.seconds(4.0) == 3.0
    late.executed(4)
    assert late.seconds(4.0) == 3.0
    late.executed(5)
    assert late.seconds(4.0) == 0.0


def test_who_keeps_up_with_what_is_committed_all_the_time_is_hardly_late() -> None:
    late = Lateness()
    for step in range(1, 101):
        now = step * MARK_S
        late.committed(step * 10, now)
        late.executed(step * 10 - 10)  # One step behind, for ever.
        assert late.seconds(now) <= MARK_S


def test_who_falls_behind_is_as_late_as_its_oldest_frame() -> None:
    late = Lateness()
    for second in range(1, 11):
        late.committed(second, float(second))
    late.executed(3)
    assert late.seconds(10.0) == 10.0 - 4.0


def test_what_was_committed_before_is_no_news() -> None:
    late = Lateness()
    late.committed(5, 1.0)
    late.executed(5)
    late.committed(5, 2.0)
    late.committed(4, 3.0)
    assert late.seconds(9.0) == 0.0


def test_few_marks_are_kept_however_often_something_is_committed() -> None:
    late = Lateness()
    for step in range(10_000):
        late.committed(step + 1, step / 10_000)
    assert len(late._marks) <= 1 / MARK_S + 1
