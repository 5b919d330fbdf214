"""As an operator, I lose container, pod and node, and find each acknowledged command once."""

import json

import pytest
from tests.e2e.cluster.cluster import Namespace, RefusedContext, checked_context
from tests.e2e.cluster.faults import kill_container, restart_node
from tests.e2e.cluster.one_shard import POD, Bank, service, stateful_set


def volume(namespace: Namespace) -> str:
    claim = namespace.get("persistentvolumeclaim", f"data-{POD}")
    assert claim is not None
    return str(claim["spec"]["volumeName"])


def test_what_was_acknowledged_outlives_its_container_its_pod_and_its_node(
    namespace: Namespace,
) -> None:
    bank = Bank()
    namespace.apply(service(), stateful_set())
    pod = namespace.wait_ready(POD)
    with namespace.forward(POD, 8080) as address:
        bank.open_accounts(address)
        bank.pay(address, 20)
        bank.check(address)
    first_volume = volume(namespace)

    kill_container(pod)
    pod = namespace.wait_ready(POD, restarts_min=1)
    with namespace.forward(POD, 8080) as address:
        bank.check(address)
        bank.pay(address, 20)

    uid = pod["metadata"]["uid"]
    namespace.kubectl("delete", "pod", POD, "--grace-period=0", "--force")
    pod = namespace.wait_ready(POD, besides=uid)
    with namespace.forward(POD, 8080) as address:
        bank.check(address)
        bank.pay(address, 20)

    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    restart_node(pod["spec"]["nodeName"])
    namespace.wait_ready(POD, restarts_min=restarts + 1)
    with namespace.forward(POD, 8080) as address:
        bank.check(address)
        bank.pay(address, 20)
        bank.check(address)

    assert volume(namespace) == first_volume
    assert len(bank.told) == 81


def test_a_pod_that_may_be_root_is_refused_in_the_namespace_of_a_test(namespace: Namespace) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "engine", "image": "ultraengine/engine:lab"}]},
    }
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted'):
        namespace.kubectl("create", "-f", "-", stdin=json.dumps(body))


@pytest.mark.parametrize("name", ["kind-ultra", "production", "kind-ultraenginex", ""])
def test_a_context_that_is_not_the_labs_is_refused(name: str) -> None:
    with pytest.raises(RefusedContext, match="hack/lab/lab up"):
        checked_context(name)


@pytest.mark.parametrize("name", ["kind-ultraengine", "kind-ultraengine-2"])
def test_a_context_of_the_lab_is_accepted(name: str) -> None:
    assert checked_context(name) == name
