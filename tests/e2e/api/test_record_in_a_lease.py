"""The record of a replicated shard in a Lease of a real API server."""

import ssl
import uuid
from pathlib import Path

import pytest
from tests.servers.kubernetes import ApiServer as Server
from tests.unit.contracts.test_record_store_contract import RecordStoreContract

from ultraengine.ports import RecordStore
from ultraengine_adapters.kubernetes.record_store import ApiServer, LeaseRecordStore

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def make(server: Server, name: str) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    made = server.request("POST", LEASES, lease)
    assert made.status == 201, made.message


def reached(server: Server, name: str) -> LeaseRecordStore:
    at = server.directory
    tls = ssl.create_default_context(cafile=str(at / "ca.crt"))
    tls.load_cert_chain(at / "admin.crt", at / "admin.key")
    return LeaseRecordStore(ApiServer(host="127.0.0.1", port=server.port, tls=tls), "default", name)


class TestLeaseOfARealApiServer(RecordStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path, empty_api_server: Server) -> RecordStore:
        name = f"record-{uuid.uuid4().hex[:8]}"
        make(empty_api_server, name)
        return reached(empty_api_server, name)

    def test_a_lease_that_is_deleted_and_made_anew_has_no_record(
        self, empty_api_server: Server
    ) -> None:
        make(empty_api_server, "anew")
        store = reached(empty_api_server, "anew")
        assert store.swap(None, b"first")
        empty_api_server.request("DELETE", f"{LEASES}/anew")
        assert store.read() is None
        with pytest.raises(FileNotFoundError):
            store.swap(b"first", b"second")
        make(empty_api_server, "anew")
        assert not store.swap(b"first", b"second")
        assert store.read() is None

    def test_labels_and_owners_of_others_stay(self, empty_api_server: Server) -> None:
        make(empty_api_server, "labelled")
        store = reached(empty_api_server, "labelled")
        assert store.swap(None, b"first")
        empty_api_server.kubectl("label", "lease", "labelled", "team=a")
        assert store.swap(b"first", b"second")
        held = empty_api_server.request("GET", f"{LEASES}/labelled").body
        assert held["metadata"]["labels"] == {"team": "a"}
        assert store.read() == b"second"
