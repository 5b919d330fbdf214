"""Every rule and every limit of the CRDs, asked of a real API server."""

import pytest
from tests.e2e.api.limits import Limit, limits
from tests.e2e.api.rules import CASES, Case
from tests.e2e.api.whole import PLURALS, Content, whole, without
from tests.servers.kubernetes import Answer, ApiServer

COLLECTION = "/apis/ultraengine.io/v1alpha1/namespaces/default"
LIMITS = limits()


def create(server: ApiServer, content: Content, **query: str) -> Answer:
    return server.request("POST", f"{COLLECTION}/{PLURALS[content['kind']]}", content, **query)


def path_of(content: Content) -> str:
    return f"{COLLECTION}/{PLURALS[content['kind']]}/{content['metadata']['name']}"


def replace(server: ApiServer, content: Content, *, status: bool = False) -> Answer:
    """Replace without doing it."""
    held = server.request("GET", path_of(content)).body
    version = held["metadata"]["resourceVersion"]
    asked = {**content, "metadata": {**content["metadata"], "resourceVersion": version}}
    path = f"{path_of(content)}/status" if status else path_of(content)
    return server.request("PUT", path, asked, dryRun="All")


def tried(server: ApiServer, case: Case, content: Content) -> Answer:
    if case.before is None:
        return create(server, content, dryRun="All")
    made = create(server, case.before)
    assert made.status == 201, made.message
    try:
        return replace(server, content)
    finally:
        server.request("DELETE", path_of(case.before))


def limited(server: ApiServer, limit: Limit, content: Content) -> Answer:
    if not limit.of_status:
        return create(server, content, dryRun="All")
    spec_alone = without(whole(limit.kind), ("status",))
    made = create(server, spec_alone)
    assert made.status == 201, made.message
    try:
        return replace(server, content, status=True)
    finally:
        server.request("DELETE", path_of(spec_alone))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_rule_lets_through_what_it_should(api_server: ApiServer, case: Case) -> None:
    answer = tried(api_server, case, case.good)
    assert answer.status in {200, 201}, answer.message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_rule_refuses_the_rest_and_says_why(api_server: ApiServer, case: Case) -> None:
    answer = tried(api_server, case, case.bad)
    assert answer.status == 422, answer.body
    said = [cause["message"] for cause in answer.body["details"]["causes"]]
    assert sum(case.message in one for one in said) == 1, said
    # A Shard whose engine or number changes no longer suits its name either.
    assert all(case.message in one or "metadata.name must be made of" in one for one in said)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_value_within_its_limit_is_taken(api_server: ApiServer, limit: Limit) -> None:
    answer = limited(api_server, limit, limit.within)
    assert answer.status in {200, 201}, answer.message


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_value_beyond_its_limit_is_refused_with_the_limit_named(
    api_server: ApiServer, limit: Limit
) -> None:
    answer = limited(api_server, limit, limit.beyond)
    assert answer.status in {400, 422}, answer.body
    assert limit.complaint in answer.message


@pytest.mark.parametrize("kind", PLURALS)
def test_a_kind_needs_a_spec(api_server: ApiServer, kind: str) -> None:
    answer = create(api_server, without(whole(kind), ("spec",)), dryRun="All")
    assert answer.status == 422
    assert "spec: Required value" in answer.message
