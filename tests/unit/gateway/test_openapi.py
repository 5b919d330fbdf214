"""The OpenAPI document: complete, honest, and every example works."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jsonschema_rs
import msgspec
import pytest
from tests.unit.gateway.conftest import Served, Serving, add

from ultraengine.domains.counter import DOMAIN as COUNTER
from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.execution.registry import Registry
from ultraengine.gateway.driver import GatewayOptions
from ultraengine.gateway.engine import Operations
from ultraengine.gateway.openapi import document
from ultraengine.model.domain import Accepted, CommandSpec
from ultraengine.model.errors import PROBLEMS

BOTH = Registry([COUNTER, LEDGER])


async def nothing(*_arguments: object) -> None:
    """An operation that does nothing."""


ALL = Operations(
    pause=nothing,
    resume=nothing,
    drain=nothing,
    snapshot=nothing,
    backup=nothing,
    replay_validate=nothing,
    skip=nothing,
)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All objects within a document."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from nodes(member)
    elif isinstance(value, list):
        for member in value:
            yield from nodes(member)


@pytest.fixture
async def paper(serving: Serving) -> tuple[Served, dict[str, Any]]:
    served = await serving(domains=(COUNTER, LEDGER), operations=ALL)
    _, body = await served.get("/openapi.json")
    return served, body


def operations(paper: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in paper["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_reference_leads_somewhere_and_names_fit_the_standard(
    paper: tuple[Served, dict[str, Any]],
) -> None:
    _, body = paper
    assert body["openapi"] == "3.1.0"
    schemas = body["components"]["schemas"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas)
    references = {node["$ref"] for node in nodes(body) if isinstance(node.get("$ref"), str)}
    assert references
    assert {reference.rpartition("/")[2] for reference in references} <= set(schemas)
    names = [operation["operationId"] for _, _, operation in operations(body)]
    assert len(set(names)) == len(names)


async def test_every_command_and_read_of_every_domain_is_in_it(
    paper: tuple[Served, dict[str, Any]],
) -> None:
    _, body = paper
    mapping = body["components"]["schemas"]["Command"]["discriminator"]["mapping"]
    for domain in (COUNTER, LEDGER):
        for command in domain.commands:
            assert f"{domain.name}.{command.name}" in mapping
            assert f"{domain.name}.{command.name}@{command.version}" in mapping
        for query in domain.queries:
            assert f"/v1/{domain.name}/{query.path}" in body["paths"]


async def test_every_path_of_the_document_is_served_and_says_no_more_than_it_promises(
    paper: tuple[Served, dict[str, Any]],
) -> None:
    served, body = paper
    for path, method, operation in operations(body):
        url = re.sub(r"\{[^}]+\}", "example-1", path)
        async with served.http.request(method.upper(), url) as answer:
            text = await answer.text()
        assert str(answer.status) in operation["responses"], f"{method} {path}: {text}"
        assert "no such path" not in text


async def test_every_example_is_valid_for_the_document_and_taken_by_the_engine(
    paper: tuple[Served, dict[str, Any]],
) -> None:
    served, body = paper
    single = body["paths"]["/v1/commands"]["post"]["requestBody"]["content"]["application/json"]
    validator = jsonschema_rs.Draft202012Validator(
        {"$ref": "#/components/schemas/Command", "components": body["components"]}
    )
    assert "counter.add" in single["examples"]
    assert len(single["examples"]) >= 7
    for name, example in single["examples"].items():
        validator.validate(example["value"])
        status, answer = await served.send({**example["value"], "id": f"try-{name}"})
        assert answer["outcome"] in {"accepted", "rejected"}, (status, answer)


async def test_answers_are_what_the_schemas_say(paper: tuple[Served, dict[str, Any]]) -> None:
    served, body = paper
    components = body["components"]

    def check(path: str, method: str, status: int, answer: Any) -> None:
        response = body["paths"][path][method]["responses"][str(status)]
        (schema, *_) = [media["schema"] for media in response["content"].values()]
        jsonschema_rs.Draft202012Validator({**schema, "components": components}).validate(answer)

    for command in (add(), add(), add(delta=6), add("x", data={}), {"nonsense": 1}):
        check("/v1/commands", "post", *(await served.send(command)))
    async with served.http.post("/v1/commands:batch", json=[add("b"), 5]) as answer:
        check("/v1/commands:batch", "post", answer.status, await answer.json())
    for path, template in (
        ("/v1/commands/a-1?key=book-1", "/v1/commands/{id}"),
        ("/v1/commands/never", "/v1/commands/{id}"),
        ("/v1/counter/book-1", "/v1/counter/{key}"),
        ("/v1/counter/none", "/v1/counter/{key}"),
        ("/v1/counter/none?x=1", "/v1/counter/{key}"),
        ("/v1/limits", "/v1/limits"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/admin/v1/status", "/admin/v1/status"),
    ):
        check(template, "get", *(await served.get(path)))


def test_the_same_domains_give_the_same_document() -> None:
    one = msgspec.json.encode(document(BOTH, (), "1"))
    assert one == msgspec.json.encode(document(Registry([COUNTER, LEDGER]), (), "1"))


def test_every_problem_code_is_listed() -> None:
    listed = document(BOTH, (), "1")["x-problem-codes"]
    assert [row["code"] for row in listed] == list(PROBLEMS)


async def test_admin_paths_are_where_they_are_served_and_only_what_is_offered(
    serving: Serving,
) -> None:
    served = await serving(
        options=GatewayOptions(port=0, admin_port=0), operations=Operations(pause=nothing)
    )
    _, data = await served.get("/openapi.json")
    assert "/v1/commands" in data["paths"]
    assert not any(path.startswith(("/admin", "/metrics")) for path in data["paths"])
    host, port = served.gateway.addresses[1]
    async with served.http.get(f"http://{host}:{port}/openapi.json") as answer:
        admin = await answer.json()
    assert "/v1/commands" not in admin["paths"]
    assert [path for path in admin["paths"] if path.startswith("/admin")] == [
        "/admin/v1/status",
        "/admin/v1/limits",
        "/admin/v1/pause",
    ]
    for path, expected in (("/metrics", 200), ("/admin/v1/status", 200), ("/v1/limits", 404)):
        async with served.http.get(f"http://{host}:{port}{path}") as answer:
            assert answer.status == expected
        assert (await served.get("/admin/v1/status"))[0] == 404


class Spend(msgspec.Struct, forbid_unknown_fields=True):
    """Data that no sample can guess."""

    amount: int

    def __post_init__(self) -> None:
        if self.amount % 977:
            raise ValueError("odd")


class SpendBetter(Spend):
    """The next version of it."""


class Purse:
    """A domain with two versions of one command, and an example of its own."""

    name = "purse"
    version = 2
    schema = 1
    queries: Sequence[Any] = ()
    events = COUNTER.events
    examples: ClassVar = {"spend": {"amount": 977}}
    commands = (
        CommandSpec(name="spend", data=Spend, decide=lambda *_: Accepted()),
        CommandSpec(name="spend", data=SpendBetter, version=2, decide=lambda *_: Accepted()),
        CommandSpec(name="waste", data=Spend, decide=lambda *_: Accepted()),
    )
    new_state = focus = evolve = dump = changes = mark = load = due = expire = check = None


def test_versions_stand_side_by_side_and_domains_bring_their_own_examples() -> None:
    paper = document(Registry([Purse()]), (), "1")  # type: ignore[list-item]
    mapping = paper["components"]["schemas"]["Command"]["discriminator"]["mapping"]
    assert {name: target.rpartition("/")[2] for name, target in mapping.items()} == {
        "purse.spend@1": "purse.spend_v1",
        "purse.spend": "purse.spend",
        "purse.spend@2": "purse.spend",
        "purse.waste": "purse.waste",
        "purse.waste@1": "purse.waste",
    }
    content = paper["paths"]["/v1/commands"]["post"]["requestBody"]["content"]
    examples = content["application/json"]["examples"]
    assert examples["purse.spend"]["value"]["data"] == {"amount": 977}
    assert examples["purse.spend_v1"]["value"]["type"] == "purse.spend@1"
    assert "purse.waste" not in examples, "an example that is not taken is not shown"


async def test_the_page_needs_no_network_and_no_inline_script(served: Served) -> None:
    async with served.http.get("/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, "/docs")
    texts = {}
    for path in ("/docs", "/docs/docs.js", "/docs/docs.css"):
        async with served.http.get(path) as answer:
            assert answer.status == 200
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            texts[path] = await answer.text()
            tag = answer.headers["ETag"]
        async with served.http.get(path, headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
    for text in texts.values():
        assert not re.search(r"https?://", text)
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=", texts["/docs"])
    assert "innerHTML" not in texts["/docs/docs.js"]
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', texts["/docs"]):
        async with served.http.get(path) as answer:
            assert answer.status == 200, path
