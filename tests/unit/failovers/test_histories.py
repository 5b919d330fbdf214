"""The judge of the campaign on the cluster: it passes what is right and names what is not."""

import json
from typing import Any

import msgspec
import pytest
from tests.e2e.cluster.failovers.campaign import MAIN, order, report
from tests.e2e.cluster.failovers.chaos import FAULTS
from tests.e2e.cluster.failovers.histories import (
    PAYMENT,
    Frame,
    Journal,
    Told,
    at_share,
    pause_s,
    read_frames,
    read_journal,
    wrong,
)


def lines() -> list[dict[str, Any]]:
    """Two payments, each sent when the one before was answered, in two epochs."""
    return [
        {"sent": "b-0", "kind": "ledger.open_accounts", "at": 0.0},
        {"told": "b-0", "shard": 0, "epoch": 1, "offset": 1, "at": 1.0},
        {"sent": "b-1", "kind": PAYMENT, "at": 2.0},
        {"told": "b-1", "shard": 0, "epoch": 1, "offset": 2, "at": 3.0},
        {"sent": "b-2", "kind": PAYMENT, "at": 4.0},
        {"told": "b-2", "shard": 0, "epoch": 2, "offset": 4, "at": 5.0},
    ]


def journal(changed: list[dict[str, Any]] | None = None) -> Journal:
    return read_journal([json.dumps(one) for one in (lines() if changed is None else changed)])


def log() -> list[Frame]:
    return [
        Frame(0, 1, 0, "00", ["start"]),
        Frame(1, 1, 1, "aa", ["b-0", "b-1"]),
        Frame(4, 2, 3, "bb", ["start"]),
        Frame(5, 2, 4, "cc", ["b-2"]),
    ]


def judged(
    told: Journal | None = None, *, paid: int = 2, logs: dict[str, list[Frame]] | None = None
) -> list[str]:
    copies = {"0": log(), "1": log(), "2": log()} | (logs or {})
    return wrong(told or journal(), copies, {"b": paid})


def test_a_history_without_fault_passes() -> None:
    assert judged() == []


def test_a_copy_that_was_filled_later_need_not_hold_what_came_before() -> None:
    assert judged(logs={"2": log()[2:]}) == []


def test_a_copy_whose_log_is_empty_holds_nothing_and_one_alone_is_not_enough() -> None:
    assert judged(logs={"1": [], "2": []}) == [f"b-{number} is in 1 logs" for number in range(3)]


def test_an_acknowledged_command_that_a_log_lacks_is_lost() -> None:
    replaced = [*log()[:3], Frame(5, 2, 4, "cc", ["other"])]
    assert "2: b-2 was told 4, and other stands there" in judged(logs={"2": replaced})
    assert "2: b-2 was told 4, and None stands there" in judged(logs={"2": log()[:3]})


def test_a_command_done_twice_shows_in_the_balance() -> None:
    assert judged(paid=3) == ["b has 3, and 2 payments were acknowledged"]


def test_a_later_epoch_may_not_stand_at_an_acknowledged_place() -> None:
    late = [*log()[:2], Frame(4, 2, 3, "bb", ["start"]), Frame(5, 3, 4, "cc", ["b-2"])]
    copies = {"0": late, "1": late, "2": late}
    assert judged(logs=copies)[0] == "0: b-2 was told epoch 2, and 4 is of 3"


def test_epochs_do_not_go_back() -> None:
    back = [*log()[:3], Frame(5, 1, 4, "cc", ["b-2"])]
    assert "0: epoch 1 at 4 stands behind epoch 2" in judged(logs={"0": back, "1": back, "2": back})


def test_copies_have_one_past() -> None:
    other = [*log()[:3], Frame(5, 2, 4, "dd", ["b-2"])]
    assert judged(logs={"1": other}) == ["0 and 1 differ at frame 5"]


def test_one_offset_is_given_once() -> None:
    changed = lines()
    changed[5]["offset"] = 2
    assert "b-1 and b-2 were both told offset 2" in judged(journal(changed))


def test_who_is_sent_after_an_answer_stands_behind_it() -> None:
    changed = lines()
    changed[3]["offset"], changed[5]["offset"] = 4, 2
    assert "b-2 stands at 2, and 4 was told" in judged(journal(changed))


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"failed": "b-2", "code": "OUTCOME_UNKNOWN", "at": 5.0}, "b-2 failed: OUTCOME_UNKNOWN"),
        (None, "b-2 was never answered"),
    ],
)
def test_a_command_without_an_answer_is_named(last: dict[str, Any] | None, said: str) -> None:
    changed = [*lines()[:5], *([] if last is None else [last])]
    assert said in judged(journal(changed), paid=1)


def test_a_journal_that_ends_within_a_line_is_read_up_to_there() -> None:
    whole = [json.dumps(one) for one in lines()]
    assert read_journal([*whole[:5], whole[5][:20]]).told.keys() == {"b-0", "b-1"}
    assert read_journal(whole).told["b-2"] == Told(5.0, 2, 4)


def test_frames_are_read_as_they_are_printed() -> None:
    printed = [msgspec.json.encode(frame).decode() for frame in log()]
    assert read_frames([*printed, ""]) == log()


def test_a_pause_is_the_longest_gap_that_touches_the_fault() -> None:
    acknowledged = [0.0, 5.0, 10.0, 10.5, 13.0, 13.5, 20.0]
    assert pause_s(acknowledged, 10.2, 13.2) == 2.5
    assert pause_s(acknowledged, 30.0, 40.0) == 0.0


def test_a_share_is_taken_of_the_values_in_order() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [at_share(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert at_share([3.0], 0.5) == 3.0


def test_a_campaign_kills_leaders_and_does_each_other_fault_for_every_twenty_of_it() -> None:
    names = order(100, list(FAULTS), seed=1)
    counts = {name: names.count(name) for name in FAULTS}
    assert counts == {name: 100 if name == MAIN else 5 for name in FAULTS}
    assert order(100, list(FAULTS), seed=1) == names != order(100, list(FAULTS), seed=2)
    assert order(3, ["node-cut-off"], seed=1) == ["node-cut-off"]


def test_a_report_has_a_row_for_each_fault_and_a_histogram_of_the_main_one(tmp_path: Any) -> None:
    rows = [{"fault": MAIN, "pause_s": pause} for pause in (1.1, 1.2, 2.0)]
    file = tmp_path / "rows"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    text = report([file])
    assert f"| {MAIN} | 3 | 1.20 | 2.00 | 2.00 |" in text
    assert " 1.00 to  1.25 s    2 ##" in text
