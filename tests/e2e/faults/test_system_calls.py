"""Errors of system calls, injected into a real process by strace."""

import re
from pathlib import Path

import pytest

from ultraengine.testing.process_faults import CANNOT_START, FAILED, Subject, strace

pytestmark = [pytest.mark.slow]


@pytest.mark.parametrize(
    ("injection", "reason"),
    [
        ("fdatasync:error=EIO:when=3", "Input/output error"),
        ("fdatasync:error=EIO:when=25", "Input/output error"),
        ("fdatasync:error=ENOSPC:when=25", "No space left"),
        ("pwrite64:error=EIO:when=25", "Input/output error"),
        ("rename:error=EIO:when=4", "Input/output error"),
        ("fsync:error=EIO:when=6", "Input/output error"),
        ("ftruncate:error=EIO:when=3", "Input/output error"),
    ],
)
def test_an_error_of_the_disk_ends_the_process_with_its_reason_and_loses_nothing(
    subject: Subject, tmp_path: Path, journal: Path, injection: str, reason: str
) -> None:
    data, report = tmp_path / "data", tmp_path / "strace"
    running = subject.start(data, journal, strace(injection, report=report))
    verdict = running.ended()
    assert "(INJECTED)" in report.read_text()
    assert verdict.code in {CANNOT_START, FAILED}, verdict.text
    assert reason in verdict.text
    after = subject.verify(data, journal)
    assert after.code == 0, after.text


def test_a_sync_is_never_tried_again_after_it_failed(
    subject: Subject, tmp_path: Path, journal: Path
) -> None:
    data, report = tmp_path / "data", tmp_path / "strace"
    wrapper = strace("fdatasync:error=EIO:when=30", report=report)
    subject.start(data, journal, wrapper).ended()
    lines = report.read_text().splitlines()
    failed = next(n for n, line in enumerate(lines) if "(INJECTED)" in line)
    thread = lines[failed].split()[0]
    later = [line for line in lines[failed + 1 :] if line.split()[0] == thread]
    assert not [line for line in later if re.search(r"fdatasync\(.*= 0", line)]


def test_a_full_disk_makes_it_read_only_until_there_is_room(
    subject: Subject, tmp_path: Path, journal: Path
) -> None:
    data, report = tmp_path / "data", tmp_path / "strace"
    wrapper = strace("pwrite64:error=ENOSPC:when=30..45", report=report)
    running = subject.start(data, journal, wrapper)
    try:
        running.wait_until("R", 1)
        running.wait_until("W", 1)
        running.wait_for("A", 20)
        verdict = running.stop()
    finally:
        running.discard()
    assert "(INJECTED)" in report.read_text()
    assert verdict.code == 0, verdict.text
    after = subject.verify(data, journal)
    assert after.code == 0, after.text


def test_a_stalling_disk_delays_answers_and_loses_nothing(
    subject: Subject, tmp_path: Path, journal: Path
) -> None:
    data, report = tmp_path / "data", tmp_path / "strace"
    wrapper = strace("fdatasync:delay_enter=50000:when=10+3", report=report)
    running = subject.start(data, journal, wrapper)
    try:
        running.wait_for("A", 40)
    finally:
        running.kill()
    after = subject.verify(data, journal)
    assert after.code == 0, after.text
