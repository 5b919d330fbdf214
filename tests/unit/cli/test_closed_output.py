"""A serving engine outlives whoever reads along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultraengine.cli.output import tell

PROGRAM = (
    "from ultraengine.cli.output import tell; import sys\n"
    "tell('first'); tell('second'); print('third')\n"
    "sys.stderr.write('went on')"
)


def test_what_is_told_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tell("here it is")
    assert capsys.readouterr().out == "here it is\n"


def ended(stdout: int) -> tuple[int, bytes]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=stdout, stderr=subprocess.PIPE, check=False
    )
    return done.returncode, done.stderr


def test_a_reader_that_is_gone_stops_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert ended(writer) == (0, b"went on")
    finally:
        os.close(writer)


def test_an_output_that_takes_nothing_stops_nobody() -> None:
    writer = os.open("/dev/full", os.O_WRONLY)
    try:
        assert ended(writer) == (0, b"went on")
    finally:
        os.close(writer)


def test_descriptors_that_were_closed_do_not_become_those_of_data_files(tmp_path: Path) -> None:
    program = (
        "import os; from ultraengine.cli.output import hold_standard_descriptors\n"
        "hold_standard_descriptors()\n"
        "taken = [os.fstat(number).st_rdev for number in range(3)]\n"
        "null = os.stat(os.devnull).st_rdev\n"
        "assert taken == [null] * 3 and os.open('data', os.O_CREAT | os.O_RDWR) > 2\n"
        "open('ok', 'w').close()"
    )
    command = f"exec '{sys.executable}' -c \"$0\" <&- >&- 2>&-"
    subprocess.run(["bash", "-c", command, program], cwd=tmp_path, check=True)
    assert (tmp_path / "ok").exists()
