"""The account of a replicated shard's pods: its own record, and nothing else, of no other shard."""

import json
from collections.abc import Iterator

import pytest
from tests.e2e.api.test_manifests import NOBODY, OPERATOR, apply, permitted
from tests.servers.kubernetes import ApiServer
from tests.unit.operator.test_plan import content

from ultraengine_operator.api.decode import engine_of
from ultraengine_operator.observed import Observed
from ultraengine_operator.plan import Settings, view_of
from ultraengine_operator.specs import replicas

ACCOUNT = "system:serviceaccount:default:shop-shard-{}"
OWN = "leases.coordination.k8s.io/shop-shard-0"


@pytest.fixture
def shards(api_server: ApiServer) -> Iterator[ApiServer]:
    """Two shards' accounts and Leases, made with the permissions of the operator; gone again
    afterwards, since other tests have an engine of this name."""
    apply(api_server, "base")
    view, _ = view_of(engine_of(content(shards=2, replicasPerShard=3)), Observed(), Settings())
    made = [one for shard in (0, 1) for one in replicas.account(view, shard)]
    made += [replicas.record(view, shard) for shard in (0, 1)]
    for one in made:
        # Its UltraEngine is not there: a garbage collector is not what is looked at.
        one["metadata"].pop("ownerReferences", None)
    leases = [one for one in made if one["kind"] == "Lease"]
    rest = json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": [one for one in made if one not in leases]}
    )
    api_server.kubectl("apply", "--server-side", f"--as={OPERATOR}", "-f", "-", stdin=rest)
    for lease in leases:
        api_server.kubectl("create", f"--as={OPERATOR}", "-f", "-", stdin=json.dumps(lease))
    yield api_server
    for one in made:
        api_server.kubectl("delete", one["kind"], one["metadata"]["name"], "-n", "default")


def test_the_operator_gives_each_shard_its_own_lease_and_nothing_beyond(shards: ApiServer) -> None:
    for number in (0, 1):
        account = ACCOUNT.format(number)
        own = permitted(shards, account, "default") - permitted(shards, NOBODY, "default")
        assert own == {f"leases.coordination.k8s.io [] [shop-shard-{number}] [get watch update]"}
        assert permitted(shards, account, "kube-system") == permitted(shards, NOBODY, "kube-system")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (f"get {OWN}", "yes"), (f"update {OWN}", "yes"), (f"watch {OWN}", "yes"),
        (f"patch {OWN}", "no"), (f"delete {OWN}", "no"), ("create leases", "no"),
        ("list leases", "no"), ("update leases.coordination.k8s.io/shop-shard-1", "no"),
        ("get secrets/shop-shard-0-tls", "no"), ("get pods", "no"),
    ],
)  # fmt: skip
def test_a_copy_may(shards: ApiServer, question: str, answer: str) -> None:
    done = shards.try_kubectl(
        "auth", "can-i", *question.split(), f"--as={ACCOUNT.format(0)}", "-n", "default"
    )
    assert done.stdout.strip() == answer
