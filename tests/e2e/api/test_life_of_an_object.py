"""What people and tools do with our objects, with the real kubectl against a real API server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.e2e.api.whole import ENGINE_STATUS, PLURALS, Content, whole, with_spec, without
from tests.servers.crds import FILES, fields
from tests.servers.kubernetes import APPLY, ApiServer

COLLECTION = "/apis/ultraengine.io/v1alpha1/namespaces/default"
SMALLEST = """
apiVersion: ultraengine.io/v1alpha1
kind: UltraEngine
metadata: {name: smallest}
spec: {}
"""


WHOLE = yaml.safe_dump(without(whole("UltraEngine"), ("status",)))


def path_of(content: Content) -> str:
    return f"{COLLECTION}/{PLURALS[content['kind']]}/{content['metadata']['name']}"


def with_status(server: ApiServer, content: Content) -> None:
    """Make the object and report its status, as the operator does."""
    answer = server.request("PATCH", path_of(content), without(dict(content), ("status",)),
                            content_type=APPLY, fieldManager="someone")  # fmt: skip
    assert answer.status == 201, answer.message
    told = {key: content[key] for key in ("apiVersion", "kind", "metadata", "status")}
    answer = server.request("PATCH", f"{path_of(content)}/status", told,
                            content_type=APPLY, fieldManager="operator")  # fmt: skip
    assert answer.status == 200, answer.message


@pytest.fixture
def server(api_server: ApiServer) -> Iterator[ApiServer]:
    """The server; objects of the test are removed at its end."""
    yield api_server
    for plural in PLURALS.values():
        api_server.request("DELETE", f"{COLLECTION}/{plural}")


@pytest.mark.parametrize("side", ["--server-side=false", "--server-side=true"])
@pytest.mark.parametrize("text", [SMALLEST, WHOLE], ids=["smallest", "whole"])
def test_apply_get_apply_changes_nothing(server: ApiServer, side: str, text: str) -> None:
    server.kubectl("apply", side, "-f", "-", stdin=text)
    name = yaml.safe_load(text)["metadata"]["name"]
    # As an operator does at once: the status that is there by default is stored with it.
    seen = {"status": {"observedGeneration": 1}}
    answer = server.request("PATCH", f"{COLLECTION}/ultraengines/{name}/status", seen,
                            content_type="application/merge-patch+json")  # fmt: skip
    assert answer.status == 200, answer.message
    first = server.kubectl("get", "ue", name, "-o", "json")
    assert server.try_kubectl("diff", side, "-f", "-", stdin=text).returncode == 0
    server.kubectl("apply", side, "-f", "-", stdin=text)
    assert server.try_kubectl("diff", side, "-f", "-", stdin=first).returncode == 0
    server.kubectl("apply", side, "-f", "-", stdin=first)
    again = json.loads(server.kubectl("get", "ue", name, "-o", "json"))
    assert again["spec"] == json.loads(first)["spec"]
    assert again["metadata"]["generation"] == 1


def test_the_smallest_engine_gets_the_documented_defaults(server: ApiServer) -> None:
    server.kubectl("apply", "-f", "-", stdin=SMALLEST)
    found = json.loads(server.kubectl("get", "ue", "smallest", "-o", "json"))
    assert found["spec"] == {
        "shards": 1,
        "replicasPerShard": 3,
        "domains": ["ultraengine.domains.ledger:DOMAIN"],
        "durability": "Sync",
        "storage": {"size": "10Gi"},
        "gateway": {"replicas": 2},
        "query": {"replicas": 0},
        "deletionPolicy": "Retain",
        "reconciliation": "Active",
    }


@pytest.mark.parametrize("path", ["sharsd: 2", "gateway: {replica: 2}", "status: {}"])
def test_an_unknown_field_is_refused_by_name(server: ApiServer, path: str) -> None:
    text = SMALLEST.replace("spec: {}", f"spec: {{{path}}}")
    done = server.try_kubectl("apply", "--validate=strict", "-f", "-", stdin=text)
    assert done.returncode != 0
    assert "unknown field" in done.stderr
    assert path.split(":", maxsplit=1)[0] in done.stderr


def test_spec_and_status_are_written_apart(server: ApiServer) -> None:
    content = whole("UltraEngine")
    with_status(server, content)
    held = server.request("GET", path_of(content)).body
    changed = {**held, "spec": {**held["spec"], "shards": 9}, "status": {"shards": 99}}
    answer = server.request("PUT", path_of(content), changed)
    assert (answer.body["spec"]["shards"], answer.body["status"]) == (9, ENGINE_STATUS)
    changed = {**answer.body, "spec": {**held["spec"], "shards": 1}, "status": {"shards": 7}}
    answer = server.request("PUT", f"{path_of(content)}/status", changed)
    assert (answer.body["spec"]["shards"], answer.body["status"]) == (9, {"shards": 7})
    assert answer.body["metadata"]["generation"] == 2


@pytest.mark.parametrize("kind", ["UltraEngine", "Shard"])
def test_scale_reads_the_status_and_writes_the_spec(server: ApiServer, kind: str) -> None:
    content = whole(kind)
    with_status(server, content)
    scale = server.request("GET", f"{path_of(content)}/scale").body
    assert scale["status"]["replicas"] == content["status"]["replicas"]
    assert scale["status"]["selector"] == content["status"]["selector"]
    name = content["metadata"]["name"]
    server.kubectl("scale", f"{PLURALS[kind]}.ultraengine.io/{name}", "--replicas=3")
    spec = server.request("GET", path_of(content)).body["spec"]
    assert spec["shards" if kind == "UltraEngine" else "replicas"] == 3


def test_the_category_and_the_short_names_list_our_objects(server: ApiServer) -> None:
    for kind in FILES:
        with_status(server, whole(kind))
    listed = server.kubectl("get", "ultra", "-o", "name").split()
    assert listed == [
        "shard.ultraengine.io/whole-shard-1", "snapshot.ultraengine.io/whole",
        "ultraengine.ultraengine.io/whole",
    ]  # fmt: skip
    assert [server.kubectl("get", short, "-o", "name").strip() for short in
            ("uesh", "uesnap", "ue")] == listed  # fmt: skip
    assert [server.kubectl("get", kind.lower(), "-o", "name").strip() for kind in
            ("Shard", "Snapshot", "UltraEngine")] == listed  # fmt: skip
    assert server.kubectl("get", "ultraengine", "whole", "-o", "name").strip() == listed[2]


COLUMNS = {
    "UltraEngine": """whole True 2 2 1/2048 ultraengine:0.1.0 0s Ready Sync
        whole-gateway.default.svc AsWished""",
    "Shard": """whole-shard-1 whole 1 True whole-shard-1-0 18446744073709551615 2048 0s
        9007199254740993 data-whole-shard-1-0 AsWished""",
    "Snapshot": """whole whole 1 True 0s AsWished 9007199254740993
        s3://bucket/whole""",
}
"""Without Available, which these objects do not tell; the age varies."""


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_column_shows_what_it_says(server: ApiServer, kind: str) -> None:
    with_status(server, whole(kind))
    shown = server.kubectl("get", PLURALS[kind], "-o", "wide", "--no-headers").split()
    expected = COLUMNS[kind].split()
    age = expected.index("0s")
    assert [*shown[:age], "0s", *shown[age + 1 :]] == expected


@pytest.mark.parametrize("kind", FILES)
def test_kubectl_explains_every_field(server: ApiServer, kind: str) -> None:
    told = server.kubectl("explain", f"{PLURALS[kind]}.ultraengine.io", "--recursive")
    lines = [line.split() for line in told.splitlines() if "\t" in line or line.startswith("  ")]
    names = {line[0] for line in lines if line}
    wanted = {
        field.path[-1] for field in fields(kind) if field.path and field.path[-1] not in "[]{}"
    }
    assert wanted <= names


def leaves(kind: str) -> list[str]:
    """Fields to explain one by one: those of the spec, two steps deep."""
    return [
        field.name for field in fields(kind)
        if len(field.path) <= 3 and field.path[:1] == ("spec",) and field.path[-1] not in "[]{}"
    ]  # fmt: skip


@pytest.mark.parametrize("name", leaves("UltraEngine"))
def test_kubectl_explain_says_what_the_schema_says(server: ApiServer, name: str) -> None:
    schema: dict[str, Any] = next(one.schema for one in fields("UltraEngine") if one.name == name)
    told = server.kubectl("explain", f"ultraengines.ultraengine.io.{name.replace('[]', '')}")
    assert " ".join(schema["description"].split()) in " ".join(told.split())


def test_two_managers_of_one_list_do_not_take_items_from_each_other(server: ApiServer) -> None:
    for name in ("ULTRA_A", "ULTRA_B"):
        content = with_spec("UltraEngine", {"settings": [{"name": name, "value": "1"}]})
        answer = server.request("PATCH", path_of(content), content, content_type=APPLY,
                                fieldManager=name.lower().replace("_", "-"))  # fmt: skip
        assert answer.status in {200, 201}, answer.message
    held = server.request("GET", f"{COLLECTION}/ultraengines/whole").body
    assert [one["name"] for one in held["spec"]["settings"]] == ["ULTRA_A", "ULTRA_B"]
