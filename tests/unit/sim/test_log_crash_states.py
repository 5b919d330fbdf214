"""The log against every disk that a power cut can leave, for short runs of every kind.

For each run: at every moment, for every subset of what was not synced (sampled beyond eight
steps), the log is opened again, and `ultraengine.testing.log_runs.Judge` says what must hold.

A script is a run in one form of storage.  All states of 69 scripts are judged, and a share of those
of 46 more; ``ULTRA_TORTURE=1`` (``make torture``) judges all states of all, with 20 seeds.
"""

import os
import random
from collections.abc import Callable

import pytest

from ultraengine.model.limits import Limits
from ultraengine.testing.crash_states import crash_states
from ultraengine.testing.log_runs import Form, Judge, Run

pytestmark = pytest.mark.no_cover
"""It would double their time, and tests of the parts reach every branch."""

TORTURE = os.environ.get("ULTRA_TORTURE") == "1"


def one_group(run: Run) -> None:
    run.append(100)


def nothing_at_all(run: Run) -> None:
    run.stop()
    run.kill()


def groups_of_many_sizes(run: Run) -> None:
    for size in (1, 300, 1200, 385, 4000, 7):
        run.append(size)


def several_groups_in_one_write(run: Run) -> None:
    run.append(100, 900, 10)
    run.append(1500, 1500)


def frames_that_end_with_a_sector(run: Run) -> None:
    for size in (512 - 128, 1024 - 2 * 128 - 40, 512 - 2 * 128 - 40):
        run.append(size)


def a_roll(run: Run) -> None:
    for size in (3000, 3500, 2000):
        run.append(size)
    run.log.maintain()
    run.append(100)


def three_rolls(run: Run) -> None:
    for _ in range(4):
        run.append(5900)
        run.log.maintain()


def a_roll_into_a_frame_as_large_as_a_segment(run: Run) -> None:
    run.append(10)
    run.append(6 * 1024, 6 * 1024)
    run.append(10)


def writes_that_are_synced_later(run: Run) -> None:
    run.append(600, sync=False)
    run.append(40, sync=False)
    run.append(900, sync=False)
    run.sync()
    run.append(70, sync=False)


def unsynced_writes_before_a_roll(run: Run) -> None:
    run.append(3000, sync=False)
    run.append(3500, sync=False)
    run.append(3000, sync=False)
    run.append(200)


def a_clean_stop(run: Run) -> None:
    run.append(500)
    run.append(800)
    run.stop()
    run.append(90)


def a_clean_stop_with_unsynced_writes(run: Run) -> None:
    run.append(500, sync=False)
    run.stop()
    run.append(90)


def an_unclean_stop(run: Run) -> None:
    run.append(500)
    run.append(800, sync=False)
    run.abort()
    run.append(90)


def a_kill_with_unsynced_writes(run: Run) -> None:
    run.append(700)
    run.append(800, sync=False)
    run.append(20, 20, sync=False)
    run.kill()
    run.append(90)
    run.kill()


def starts_without_a_write_between(run: Run) -> None:
    run.append(1000)
    run.append(1000, sync=False)
    run.kill()
    run.cut()
    run.kill()


def a_power_cut_and_a_shorter_write_over_its_tail(run: Run) -> None:
    run.append(300)
    run.append(3000, sync=False)
    run.cut()
    run.append(30)
    run.append(2000, sync=False)
    run.cut()
    run.append(40)


def power_cuts_at_rolls(run: Run) -> None:
    run.append(5000)
    run.append(5000, sync=False)
    run.append(5000, sync=False)
    run.cut()
    run.append(4000, sync=False)
    run.append(4000, sync=False)
    run.cut()


def a_failed_sync(run: Run) -> None:
    run.append(400)
    run.fail_sync(2500)
    run.append(60)


def failed_syncs_in_a_row(run: Run) -> None:
    run.fail_sync(1000, 700)
    run.fail_sync(100)
    run.append(60)
    run.cut()


def a_full_disk(run: Run) -> None:
    run.append(400)
    run.refuse(1000, kept=0)
    run.append(500)
    run.append(60)


def full_disks_after_a_part_of_the_write(run: Run) -> None:
    run.append(400)
    run.refuse(300, 1000, kept=800)
    run.append(500)
    run.refuse(3000, kept=3168)
    run.kill()
    run.append(60)


def a_mark_by_hand(run: Run) -> None:
    run.append(400)
    run.log.mark()
    run.append(500)
    run.log.mark()
    run.append(2000)


def a_mark_while_something_is_not_synced(run: Run) -> None:
    run.append(400)
    run.append(500, sync=False)
    run.log.mark()
    run.append(600, sync=False)


SHAPES: tuple[Callable[[Run], None], ...] = (
    one_group,
    nothing_at_all,
    groups_of_many_sizes,
    several_groups_in_one_write,
    frames_that_end_with_a_sector,
    a_roll,
    three_rolls,
    a_roll_into_a_frame_as_large_as_a_segment,
    writes_that_are_synced_later,
    unsynced_writes_before_a_roll,
    a_clean_stop,
    a_clean_stop_with_unsynced_writes,
    an_unclean_stop,
    a_kill_with_unsynced_writes,
    starts_without_a_write_between,
    a_power_cut_and_a_shorter_write_over_its_tail,
    power_cuts_at_rolls,
    a_failed_sync,
    failed_syncs_in_a_row,
    a_full_disk,
    full_disks_after_a_part_of_the_write,
    a_mark_by_hand,
    a_mark_while_something_is_not_synced,
)
BARE = Limits(
    segment_bytes=12 * 1024, frame_bytes_max=6 * 1024, reserve_bytes=0, segments_prepared=0
)
FORMS = (
    (Form("plain"), 1.0),
    (Form("lz4", compress=True), 0.2),
    (Form("aes", encrypt=True), 1.0),
    (Form("aes-from-a-snapshot", encrypt=True, verify_from=1 << 40), 0.2),
    (Form("lz4-aes-nothing-prepared", compress=True, encrypt=True, limits=BARE), 1.0),
)
"""With the share of the states that is judged when time is short: all of them for 69 scripts."""
SEEDS = range(20) if TORTURE else range(1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("form", "share"), FORMS, ids=[form.name for form, _ in FORMS])
@pytest.mark.parametrize("shape", SHAPES, ids=[shape.__name__ for shape in SHAPES])
def test_no_power_cut_loses_what_was_promised_or_invents_anything(
    shape: Callable[[Run], None], form: Form, share: float, seed: int
) -> None:
    run = Run(form, seed)
    shape(run)
    run.end()
    for number, life in enumerate(run.lives):
        judge = Judge(run, life)
        chance = random.Random(seed * 1000 + number)
        for state in crash_states(life.trace, chance, base=life.base):
            if TORTURE or chance.random() < share or state.length == len(life.trace):
                judge.judge(state)
        assert judge.judged > 0


def test_every_state_of_at_least_fifty_scripts_is_judged() -> None:
    whole = [form.name for form, share in FORMS if share == 1.0]
    assert len(set(SHAPES)) * len(set(whole)) >= 50
