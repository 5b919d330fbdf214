"""How commands speak: progress on terminals and in files, tables, completion, endings."""

import io
import sys
from types import SimpleNamespace

import pytest

from ultraengine.cli import main as program
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.main import main
from ultraengine.cli.output import Progress, plural, print_facts, print_table
from ultraengine.cli.repl import Line, NotUnderstood, Vocabulary, parse_line, vocabulary_of


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_gets_a_bar_that_is_removed_at_the_end() -> None:
    stream, clock = Terminal(), Clock()
    with Progress("import x", stream=stream, now=clock) as progress:
        clock.now = 10.0
        progress.update(25, 100, "5 rows")
        clock.now = 10.05
        progress.update(26, 100, "never drawn: too soon")
        clock.now = 71.0
        progress.update(50, 100, "6 rows")
    drawn = stream.getvalue()
    assert "import x [#######---------------------]  25%  5 rows  30 s left" in drawn
    assert "50%  6 rows  1 min 11 s left" in drawn
    assert "too soon" not in drawn
    assert drawn.rpartition("left")[2].strip() == ""


def test_a_file_gets_a_plain_line_every_few_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("import x", stream=stream, now=clock) as progress:
        for second in range(12):
            clock.now = float(second)
            progress.update(second, 12, f"{second} rows")
    assert stream.getvalue() == (
        "import x:  42%  5 rows  7 s left\nimport x:  83%  10 rows  2 s left\n"
    )


def test_quiet_progress_says_nothing_and_empty_work_is_done() -> None:
    stream, clock = Terminal(), Clock()
    with Progress("x", quiet=True, stream=stream, now=clock) as progress:
        clock.now = 9.0
        progress.update(1, 2, "")
    assert stream.getvalue() == ""
    with Progress("x", stream=stream, now=clock) as progress:
        clock.now = 18.0
        progress.update(0, 0, "nothing to do")
    assert "100%  nothing to do  0 s left" in stream.getvalue()


def test_tables_and_facts_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["name", "bytes"], ["a", "1,000"], ["long", "1"]], right=frozenset({1}))
    print_facts({"one": None, "second": {"a": 1, "b": [True, "x"]}})
    print_facts({})
    assert capsys.readouterr().out == (
        "name  bytes\na     1,000\nlong      1\none     -\nsecond  a=1, b=True, x\n"
    )


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 entry"), (0, "0 entries"), (1234, "1,234 entries")]
)
def test_counts_are_words(count: int, text: str) -> None:
    assert plural(count, "entry", "entries") == text
    assert plural(2, "row") == "2 rows"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line("nothing")),
        ("# a note", Line("nothing")),
        ("?", Line("help")),
        ("types", Line("types")),
        ("exit", Line("quit")),
        ("limits", Line("get", ("limits",))),
        (" ledger/b/accounts?limit=1 ", Line("get", ("ledger/b/accounts?limit=1",))),
        ("outcome b c", Line("outcome", ("b", "c"))),
        ('a.b k {"x": 1}', Line("send", ("a.b", "k", {"x": 1}))),
        ("a.b@2 k []", Line("send", ("a.b@2", "k", []))),
    ],
)
def test_a_line_is_understood_without_a_verb(text: str, line: Line) -> None:
    assert parse_line(text) == line


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("outcome b", "as in: outcome"),
        ("a.b k", "as in: a.b KEY"),
        ("a.b k {", "not JSON"),
        ("send it", "neither a command type nor a path"),
    ],
)
def test_a_line_that_is_not_understood_gets_an_example(text: str, part: str) -> None:
    with pytest.raises(NotUnderstood, match=part):
        parse_line(text)


def test_completion_offers_types_paths_and_the_keys_that_were_typed() -> None:
    words = Vocabulary(["ledger.open_accounts", "counter.add"], ["ledger/{key}/accounts"])
    assert words.candidates("", "ledger") == ["ledger.open_accounts", "ledger/{key}/accounts"]
    words.learn(parse_line("counter.add book-1 {}"))
    words.learn(parse_line("ledger/book-2/accounts?limit=3"))
    words.learn(parse_line("limits"))
    assert words.candidates("", "ledger/") == ["ledger/book-1/accounts", "ledger/book-2/accounts"]
    assert words.candidates("counter.add ", "b") == ["book-1", "book-2"]
    assert words.candidates("outcome ", "book-2") == ["book-2"]
    assert words.candidates("counter.add book-1 ", "") == []


def test_a_document_of_another_shape_completes_nothing() -> None:
    documents: list[object] = [[], {}, {"paths": {"/v1/x": "odd"}}]
    for document in documents:
        words = vocabulary_of(document)
        assert (words.types, words.paths) == ([], [])


def failing(error: BaseException) -> SimpleNamespace:
    def run(_options: object) -> int:
        raise error

    return SimpleNamespace(configure=lambda _parser: None, run=run)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandFailed("no", advice="do", code=Exit.REFUSED), Exit.REFUSED, "ultra: no\n  do\n"),
        (CommandFailed("no"), Exit.USAGE, "ultra: no\n"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "ultra: interrupted\n"),
    ],
)
def test_every_ending_has_its_code_and_its_sentence(
    error: BaseException,
    code: Exit,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "failing_verb", failing(error))
    monkeypatch.setitem(program.VERBS, "fail", program.Verb("failing_verb", "fail"))
    assert main(["fail"]) == code
    assert capsys.readouterr().err == said
