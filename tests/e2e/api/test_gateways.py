"""The number of gateways under the real controller of autoscalers, and the way in from outside."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.api.controllers import APPS, NAMESPACE
from tests.e2e.api.operators import ENGINES, Operators, apply, ready, until
from tests.servers.kubernetes import ApiServer, kubelab

from ultraengine_operator import names

SCALERS = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers"
INGRESSES = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses"
MERGE = "application/merge-patch+json"


@pytest.fixture
def autoscaling(api_server: ApiServer, tmp_path: Path) -> Iterator[None]:
    """Kubernetes' own controller of autoscalers. Nobody measures CPU here, so it does what it does
    without: it keeps the number between the least and the most."""
    with (tmp_path / "autoscaling.txt").open("wb") as log:
        controller = subprocess.Popen(
            [kubelab(), "kube-controller-manager", f"--kubeconfig={api_server.kubeconfig}",
             "--controllers=horizontal-pod-autoscaler-controller", "--leader-elect=false",
             "--secure-port=0", "--horizontal-pod-autoscaler-sync-period=1s"],
            stdout=log, stderr=log,
        )  # fmt: skip
    yield
    controller.terminate()
    controller.wait(30)


def numbers(server: ApiServer, name: str, since: str) -> list[int]:
    """Every number of pods that a Deployment was given since then, in order."""
    told = server.kubectl(
        "get", "--raw", f"{APPS}/deployments?watch=1&timeoutSeconds=1&resourceVersion={since}"
        f"&fieldSelector=metadata.name%3D{name}",
    )  # fmt: skip
    found: list[int] = []
    for line in told.splitlines():
        number = json.loads(line)["object"]["spec"]["replicas"]
        if [number] != found[-1:]:
            found.append(number)
    return found


def gone(server: ApiServer, name: str) -> None:
    """Delete an engine and its children, which nobody collects here."""
    assert server.request("DELETE", f"{ENGINES}/{name}").status == 200
    until(server, lambda: server.request("GET", f"{ENGINES}/{name}").status == 404)
    server.kubectl("delete", "all,pvc,ingress", "-l", f"ultraengine.io/engine={name}",
                   "--force", "--grace-period=0", "--wait=false")  # fmt: skip


def test_an_autoscaler_that_is_turned_on_and_off_takes_no_gateway_away(
    api_server: ApiServer, operators: Operators, autoscaling: None
) -> None:
    operators("scaling")
    deployment = f"{APPS}/deployments/wide-gateway"

    def gateways() -> int:
        found: int = api_server.request("GET", deployment).body["spec"]["replicas"]
        return found

    def wish(**gateway: Any) -> None:
        apply(api_server, "wide", shards=1, gateway=gateway)

    wish(replicas=3)
    until(api_server, ready(api_server, "wide", 1))
    assert gateways() == 3
    since = api_server.request("GET", deployment).body["metadata"]["resourceVersion"]

    def looked_at() -> bool:
        """The controller has worked out a number for the newest wish."""
        status = api_server.request("GET", f"{SCALERS}/wide-gateway").body.get("status", {})
        return status.get("desiredReplicas") == gateways() or "conditions" in status

    wish(replicas=3, autoscaling={"maxReplicas": 9})
    until(api_server, ready(api_server, "wide", 2))
    until(api_server, looked_at)
    busy = {"spec": {"replicas": 8}}
    answer = api_server.request("PATCH", f"{deployment}/scale", busy, content_type=MERGE)
    assert answer.status == 200, answer.message
    # Another template is applied, and the number stays the autoscaler's.
    limits = {"limits": {"cpu": "2"}}
    wish(replicas=3, autoscaling={"maxReplicas": 9}, resources=limits)
    until(api_server, ready(api_server, "wide", 3))
    wish(replicas=3, autoscaling={"maxReplicas": 5}, resources=limits)
    until(api_server, lambda: gateways() == 5)
    until(api_server, ready(api_server, "wide", 4))
    wish(replicas=3, resources=limits)
    until(api_server, lambda: gateways() == 3)
    until(api_server, ready(api_server, "wide", 5))
    assert api_server.request("GET", f"{SCALERS}/wide-gateway").status == 404
    assert numbers(api_server, "wide-gateway", since) == [8, 5, 3]
    owned = [
        one["manager"] for one in api_server.request("GET", deployment).body["metadata"]
        ["managedFields"] if one["operation"] == "Apply"
        and "f:replicas" in one["fieldsV1"].get("f:spec", {})
    ]  # fmt: skip
    assert owned == [], "whoever applies the number takes it from the autoscaler"
    gone(api_server, "wide")


def test_an_ingress_is_made_with_tls_and_limits_and_what_others_write_on_it_stays(
    api_server: ApiServer, operators: Operators
) -> None:
    operators("ingress")
    ingress = {
        "host": "shop.example.com", "className": "nginx", "tlsSecretName": "shop-tls",
        "rateLimit": {"controller": "Nginx", "requestsPerSecond": 50},
        "annotations": {"cert-manager.io/cluster-issuer": "public"},
    }  # fmt: skip
    apply(api_server, "open", shards=1, gateway={"apiKeysSecretName": "keys", "ingress": ingress})
    until(api_server, ready(api_server, "open", 1))
    place = f"{INGRESSES}/open-gateway"
    found = api_server.request("GET", place).body
    assert found["spec"] == {
        "ingressClassName": "nginx",
        "rules": [{"host": "shop.example.com", "http": {"paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "open-gateway", "port": {"name": "http"}}},
        }]}}],
        "tls": [{"hosts": ["shop.example.com"], "secretName": "shop-tls"}],
    }  # fmt: skip
    assert found["metadata"]["annotations"] == {
        "cert-manager.io/cluster-issuer": "public", names.RENDER_VERSION: "1",
        "nginx.ingress.kubernetes.io/limit-rps": "50",
    }  # fmt: skip

    others = {"metadata": {"annotations": {"example.com/seen": "yes"}}}
    assert api_server.request("PATCH", place, others, content_type=MERGE).status == 200
    address = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}
    assert api_server.request("PATCH", f"{place}/status", address, content_type=MERGE).status == 200
    other = {"host": "till.example.com"}
    apply(api_server, "open", shards=1, gateway={"apiKeysSecretName": "keys", "ingress": other})
    until(api_server, ready(api_server, "open", 2))
    found = api_server.request("GET", place).body
    assert [one["host"] for one in found["spec"]["rules"]] == ["till.example.com"]
    assert "tls" not in found["spec"]
    assert found["metadata"]["annotations"] == {
        "example.com/seen": "yes", names.RENDER_VERSION: "1",
    }  # fmt: skip
    assert found["status"] == address["status"]

    apply(api_server, "open", shards=1)
    until(api_server, lambda: api_server.request("GET", place).status == 404)
    gone(api_server, "open")
