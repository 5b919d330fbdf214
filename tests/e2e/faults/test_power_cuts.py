"""Real processes on a file system that forgets what was not synced."""

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ultraengine.testing.process_faults import BROKEN_PROMISE, FAILED, Subject

if TYPE_CHECKING:
    from tests.e2e.faults.conftest import ForgetfulMount

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_nothing_acknowledged_is_lost_in_a_series_of_power_cuts(
    subject: Subject, forgetful: "ForgetfulMount", journal: Path
) -> None:
    chance = random.Random(1)
    data = forgetful.place / "data"
    for _ in range(6 if subject.name == "log" else 3):
        running = subject.start(data, journal)
        try:
            running.wait_for("A", chance.randrange(1, 120))
        finally:
            running.kill()
        forgetful.cut_power()
    verdict = subject.verify(data, journal)
    assert verdict.code == 0, verdict.text
    forgetful.cut_power()
    assert subject.verify(data, journal).code == 0


def test_a_power_cut_in_the_middle_of_a_start_loses_nothing(
    subject: Subject, forgetful: "ForgetfulMount", journal: Path
) -> None:
    data = forgetful.place / "data"
    running = subject.start(data, journal)
    running.wait_for("A", 40)
    running.kill()
    for _ in range(5 if subject.name == "log" else 2):
        forgetful.cut_power()
        starting = subject.start(data, journal)
        starting.kill()
    forgetful.cut_power()
    assert subject.verify(data, journal).code == 0


def test_these_power_cuts_find_a_program_that_does_not_sync(
    forgetful: "ForgetfulMount", tmp_path: Path, careless: Subject
) -> None:
    # A cut right behind a roll finds everything synced, whoever wrote it: so more than one.
    verdicts = []
    for attempt in range(12):
        data = forgetful.place / f"data-{attempt}"
        journal = tmp_path / f"journal-{attempt}"
        running = careless.start(data, journal)
        running.wait_for("A", 20 + 9 * attempt)
        running.kill()
        forgetful.cut_power()
        verdicts.append(careless.verify(data, journal))
        if verdicts[-1].code == BROKEN_PROMISE:
            break
    assert verdicts[-1].code == BROKEN_PROMISE, verdicts
    assert "lost" in verdicts[-1].text


@pytest.mark.parametrize("after", [0, 1, 10])
def test_a_failed_sync_ends_the_process_and_the_next_one_trusts_no_cache(
    subject: Subject, forgetful: "ForgetfulMount", journal: Path, after: int
) -> None:
    data = forgetful.place / "data"
    running = subject.start(data, journal)
    running.wait_for("A", 10)
    forgetful.fail_sync(after)
    verdict = running.ended()
    assert verdict.code == FAILED, verdict.text
    assert "Input/output error" in verdict.text
    # The cache still shows what never reached the disk; what a start serves from it must
    # be on the disk before the power goes.
    assert subject.verify(data, journal).code == 0
    forgetful.cut_power()
    assert subject.verify(data, journal).code == 0
