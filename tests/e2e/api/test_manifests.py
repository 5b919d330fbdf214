"""Manifests on a real API server: they are taken as they are, and permit what the matrix says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.servers.crds import ROOT
from tests.servers.kubernetes import ApiServer, kubelab

OVERLAYS = ["base", "overlays/dev-kind", "overlays/namespaced", "overlays/onprem", "overlays/aws",
            "overlays/azure"]  # fmt: skip
SYSTEM = "ultraengine-system"
OPERATOR = f"system:serviceaccount:{SYSTEM}:ultraengine-operator"
NOBODY = "system:serviceaccount:default:nobody"
MATRIX = Path(__file__).parent / "rbac"


def kustomized(server: ApiServer, folder: str) -> str:
    return server.kubectl("kustomize", f"manifests/{folder}")


def apply(server: ApiServer, folder: str) -> str:
    """Apply for real and return what kubectl warned of."""
    done = server.try_kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict",
                              "-f", "-", stdin=kustomized(server, folder))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def server(api_server: ApiServer) -> Iterator[ApiServer]:
    """The server; permissions of the test are removed at its end."""
    yield api_server
    for kind in ("clusterrolebindings,clusterroles,storageclasses", "roles,rolebindings"):
        api_server.kubectl("delete", kind, "--all-namespaces", "--ignore-not-found",
                           "-l", "app.kubernetes.io/name=ultraengine")  # fmt: skip


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_api_server_takes_every_overlay_without_a_warning(
    server: ApiServer, folder: str
) -> None:
    assert apply(server, folder) == ""
    done = server.try_kubectl("apply", "--server-side", "--dry-run=server", "-k",
                              f"manifests/{folder}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert server.try_kubectl("diff", "--server-side", "--force-conflicts", "-f", "-",
                              stdin=kustomized(server, folder)).returncode == 0  # fmt: skip


def test_policies_are_taken_in_any_namespace(server: ApiServer) -> None:
    server.kubectl("apply", "--server-side", "-n", "default", "-k", "manifests/network")


def test_the_one_file_install_is_what_kustomize_makes(server: ApiServer) -> None:
    def sorted_objects(text: str) -> list[object]:
        found = list(yaml.safe_load_all(text))
        return sorted(found, key=lambda one: (one["kind"], one["metadata"]["name"]))

    written = (ROOT / "manifests" / "install.yaml").read_text()
    assert sorted_objects(written) == sorted_objects(kustomized(server, "base"))


def test_a_pod_that_is_not_restricted_is_refused_where_engines_run(server: ApiServer) -> None:
    apply(server, "overlays/dev-kind")
    done = server.try_kubectl("run", "rooted", "-n", "ultraengine", "--image=x",
                              "--dry-run=server")  # fmt: skip
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted:latest"' in done.stderr


def test_the_operators_pod_is_let_in_where_it_runs(server: ApiServer) -> None:
    apply(server, "base")
    objects = yaml.safe_load_all(kustomized(server, "base"))
    template = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "operator"},
        "spec": template["spec"],
    }
    path = f"/api/v1/namespaces/{SYSTEM}/pods"
    answer = server.request("POST", path, pod, dryRun="All")
    assert answer.status == 201, answer.message


def permitted(server: ApiServer, account: str, namespace: str) -> set[str]:
    told = server.kubectl("auth", "can-i", "--list", f"--as={account}", "-n", namespace,
                          "--as-group=system:serviceaccounts", "--as-group=system:authenticated",
                          "--no-headers")  # fmt: skip
    return {" ".join(line.split()) for line in told.splitlines()}


def own_permissions(server: ApiServer, namespace: str) -> list[str]:
    """What the operator may do beyond what every account may."""
    return sorted(permitted(server, OPERATOR, namespace) - permitted(server, NOBODY, namespace))


def committed(name: str) -> list[str]:
    return (MATRIX / f"{name}.txt").read_text().splitlines()


def test_the_operator_of_all_namespaces_may_do_what_the_matrix_says(server: ApiServer) -> None:
    apply(server, "base")
    assert own_permissions(server, "default") == committed("engines")
    election = set(own_permissions(server, SYSTEM)) - set(committed("engines"))
    # Where it looks after all namespaces, it creates Leases as it creates those of engines.
    assert sorted(election) == [one for one in committed("election") if "[create]" not in one]


def test_the_operator_of_one_namespace_may_do_nothing_elsewhere(server: ApiServer) -> None:
    apply(server, "overlays/namespaced")
    assert own_permissions(server, "ultraengine") == committed("engines")
    assert own_permissions(server, SYSTEM) == committed("election")
    assert own_permissions(server, "default") == []
    roles = server.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    assert "ultraengine" not in roles


@pytest.mark.parametrize(
    "question",
    ["list secrets", "watch secrets", "delete secrets", "create pods --subresource=exec",
     "update ultraengines.ultraengine.io", "delete ultraengines.ultraengine.io",
     "create clusterrolebindings", "create clusterroles", "impersonate users", "get nodes",
     # It may give what it has, for a shard's own Lease, and nothing beyond; it never patches one.
     "escalate roles", "bind roles", "bind clusterroles", "patch leases.coordination.k8s.io"],
)  # fmt: skip
def test_the_operator_may_not(server: ApiServer, question: str) -> None:
    apply(server, "base")
    done = server.try_kubectl("auth", "can-i", *question.split(), f"--as={OPERATOR}",
                              "-n", "default")  # fmt: skip
    assert done.stdout.strip() == "no"


def test_the_programs_are_those_of_the_lab(server: ApiServer) -> None:
    assert kubelab().is_file()
    told = server.request("GET", "/version").body
    assert int(told["minor"]) >= 30
