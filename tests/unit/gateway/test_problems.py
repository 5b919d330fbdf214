"""Problem documents, and the page that lists them."""

from pathlib import Path

import msgspec
import pytest

from ultraengine.edge.codec import PROBLEM_TYPE
from ultraengine.edge.problems import errors_page, problem_answer, reply_problem
from ultraengine.model.errors import PROBLEMS, EngineError
from ultraengine.model.reply import Durable, Reply, ReplyError

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_every_code_is_answered_with_its_status_and_what_to_do(code: str) -> None:
    answer = problem_answer(EngineError("what was wrong", code=code, pointer="/data/x"))
    row = PROBLEMS[code]
    body = msgspec.json.decode(answer.body)
    assert answer.status == body["status"] == row.status
    assert answer.content_type == PROBLEM_TYPE
    assert body["type"] == f"urn:ultraengine:problem:{code}"
    assert (body["code"], body["title"], body["advice"]) == (code, row.title, row.advice)
    assert (body["detail"], body["pointer"]) == ("what was wrong", "/data/x")
    assert body.get("retryable", False) is row.retryable
    assert ("Retry-After" in dict(answer.headers)) is (row.status in {429, 503})


def test_a_problem_of_a_domain_keeps_its_code_under_the_type_of_rejections() -> None:
    reply = Reply(
        id="t-1",
        outcome="rejected",
        error=ReplyError("exceeds_balance", "alice has 3", "/data/transfers/0"),
        shard=0,
        epoch=1,
        offset=41,
        version=7,
        time="2026-11-20T10:00:00.000001Z",
        durable=Durable("sync", True, 1),
        result={"transfers": []},
    )
    answer = reply_problem(reply)
    body = msgspec.json.decode(answer.body)
    assert (answer.status, body["code"]) == (422, "exceeds_balance")
    assert body["type"] == "urn:ultraengine:problem:REJECTED"
    assert msgspec.convert(body, Reply) == reply, "the members of the reply stand beside"


def test_waiting_times_are_whole_seconds_of_at_least_one() -> None:
    for wait, header in ((0.01, "1"), (1.5, "2"), (None, "1")):
        answer = problem_answer(EngineError("wait", code="OVERLOADED", retry_after_s=wait))
        assert dict(answer.headers)["Retry-After"] == header


def test_where_the_outcome_will_be_is_a_header_too() -> None:
    error = EngineError("late", code="OUTCOME_UNKNOWN", location="/v1/commands/a?key=k")
    assert dict(problem_answer(error).headers)["Location"] == "/v1/commands/a?key=k"
    reply = Reply(
        id="a",
        outcome="unknown",
        error=ReplyError("OUTCOME_UNKNOWN", "late", location="/v1/commands/a?key=k"),
    )
    assert dict(reply_problem(reply).headers)["Location"] == "/v1/commands/a?key=k"


def test_who_is_not_known_is_told_how_to_say_who_it_is() -> None:
    answer = problem_answer(EngineError("who", code="UNAUTHENTICATED"))
    assert dict(answer.headers)["WWW-Authenticate"].startswith("Bearer")


def test_a_reply_that_names_no_error_is_our_fault() -> None:
    answer = reply_problem(Reply(id="a", outcome="rejected"))
    assert answer.status == 500


def test_the_page_of_errors_is_current() -> None:
    page = DOCS / "errors.md"
    assert page.read_text() == errors_page(), (
        f"write it anew: python -c 'from ultraengine.edge.problems import errors_page; "
        f'print(errors_page(), end="")\' > {page}'
    )


def test_the_page_of_errors_has_a_row_for_every_code() -> None:
    rows = [line for line in errors_page().splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(PROBLEMS)
