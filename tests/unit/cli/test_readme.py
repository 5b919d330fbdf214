"""What the README shows is what happens."""

import asyncio
import re
import shlex
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ultraengine.cli.main import VERBS

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Dev

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
OF_THE_MOMENT = ("offset", "time")
"""Members that depend on what was sent before, and when."""


def blocks(kind: str) -> list[str]:
    """The contents of all fenced blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def curl_lines() -> list[tuple[list[str], str]]:
    """Every curl command to the engine in the README, with the line that it shows as the answer."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE):
            if part.startswith("curl ") and "localhost:8080" in part:
                command, _, answer = part.strip().rpartition("\n")
                found.append((shlex.split(command), answer))
    return found


def answer_of(dev: "Dev", arguments: list[str]) -> Any:
    """What the engine answers to a curl command."""
    path = next(word for word in arguments if "localhost:8080" in word).partition(":8080")[2]
    body = arguments[arguments.index("-d") + 1] if "-d" in arguments else None
    connection = HTTPConnection(dev.url.removeprefix("http://"))
    connection.request(
        "GET" if body is None else "POST", path, body, {"Content-Type": "application/json"}
    )
    answer = msgspec.json.decode(connection.getresponse().read())
    connection.close()
    return answer


def lasting(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in OF_THE_MOMENT}


def test_the_first_screen_and_the_python_example_do_what_they_show(
    dev: "Dev", capsys: pytest.CaptureFixture[str]
) -> None:
    lines = curl_lines()
    assert len(lines) == 3
    for arguments, shown in lines:
        assert lasting(answer_of(dev, arguments)) == lasting(msgspec.json.decode(shown))
    again = answer_of(dev, lines[1][0])
    assert again["duplicate"] is True
    program = blocks("python")[0].replace("http://localhost:8080", dev.url)
    ran: dict[str, Any] = {}
    exec(compile(program.replace("asyncio.run(main())", ""), "README.md", "exec"), ran)  # noqa: S102  (the README's own example)
    asyncio.run(ran["main"]())
    assert capsys.readouterr().out == blocks("text")[0]


def test_every_verb_that_the_documents_name_exists() -> None:
    named = set()
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        named |= set(re.findall(r"(?:`|^\$ )ultra ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named
    assert named <= set(VERBS)


def test_the_targets_that_the_documents_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"`make ([a-z0-9]+)", (ROOT / page).read_text()):
            assert f"\n{target}: " in makefile, target
