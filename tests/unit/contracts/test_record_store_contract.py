"""What every implementation of the RecordStore port does."""

import copy
import fcntl
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.lease import TOKEN, LeaseServer

from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.ports import OutcomeUnknown, RecordStore
from ultraengine.replication.record import DiskId, Holder, Record, ReplicaId, Seat
from ultraengine.replication.store import encode_record
from ultraengine.testing.sim_record import SimRecordStore
from ultraengine_adapters.kubernetes.record_store import (
    ANNOTATION,
    CONFLICTS_MAX,
    MARK,
    ApiServer,
    LeaseRecordStore,
    pod_namespace,
)
from ultraengine_adapters.local.record_store import DirectoryRecordStore


class RecordStoreContract:
    """Subclasses say which store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> RecordStore:
        raise NotImplementedError

    def test_there_is_nothing_at_first(self, store: RecordStore) -> None:
        assert store.read() is None

    def test_it_is_created_once(self, store: RecordStore) -> None:
        assert store.swap(None, b"first")
        assert not store.swap(None, b"second")
        assert store.read() == b"first"

    def test_a_swap_lands_on_what_it_expects_alone(self, store: RecordStore) -> None:
        assert not store.swap(b"first", b"second")
        assert store.read() is None
        store.swap(None, b"first")
        assert not store.swap(b"other", b"second")
        assert not store.swap(b"firs", b"second")
        assert store.swap(b"first", b"second")
        assert store.read() == b"second"
        assert not store.swap(b"first", b"third")
        assert store.read() == b"second"

    def test_a_shorter_value_replaces_a_longer_one_whole(self, store: RecordStore) -> None:
        store.swap(None, b"long" * 5000)
        assert store.swap(b"long" * 5000, b"short")
        assert store.read() == b"short"

    def test_of_many_swaps_at_once_exactly_one_lands(self, store: RecordStore) -> None:
        store.swap(None, b"0")
        landed: list[int] = []

        def race(number: int) -> None:
            if store.swap(b"0", str(number).encode()):
                landed.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(landed) == 1
        assert store.read() == str(landed[0]).encode()

    def test_a_place_is_marked_once_whatever_is_swapped(self, store: RecordStore) -> None:
        assert store.mark(None) is None
        assert store.read() is None
        assert store.mark(b"ours") == b"ours"
        assert store.read() is None
        store.swap(None, b"first")
        assert store.mark(b"theirs") == b"ours"
        store.swap(b"first", b"second")
        assert store.mark(None) == b"ours"
        assert store.read() == b"second"

    def test_of_many_marks_at_once_all_are_told_the_one_that_landed(
        self, store: RecordStore
    ) -> None:
        told: list[bytes | None] = []
        threads = [
            threading.Thread(target=lambda n=n: told.append(store.mark(b"%d" % n)))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 4
        assert set(told) == {store.mark(None)}


class TestSimRecordStore(RecordStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> RecordStore:
        return SimRecordStore()

    def test_a_lost_request_does_not_land_and_a_lost_answer_says_nothing(self) -> None:
        store = SimRecordStore(iter(["lost", "", "late", "", "late"]))
        with pytest.raises(OutcomeUnknown):
            store.swap(None, b"first")
        assert store.read() is None
        with pytest.raises(OutcomeUnknown):
            store.swap(None, b"first")
        assert store.read() == b"first"
        with pytest.raises(TimeoutError):
            store.read()


COUNTING = """
import sys
from pathlib import Path
from ultraengine_adapters.local.record_store import DirectoryRecordStore
store = DirectoryRecordStore(Path(sys.argv[1]))
landed = 0
while landed < 100:
    found = store.read()
    landed += store.swap(found, str(int(found or b"0") + 1).encode())
"""


class TestDirectoryRecordStore(RecordStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> RecordStore:
        return DirectoryRecordStore(tmp_path / "record")

    def test_another_process_finds_what_was_swapped_in(self, tmp_path: Path) -> None:
        DirectoryRecordStore(tmp_path).swap(None, b"first")
        assert DirectoryRecordStore(tmp_path).read() == b"first"

    def test_no_swap_of_processes_side_by_side_is_lost(self, tmp_path: Path) -> None:
        processes = [
            subprocess.Popen([sys.executable, "-c", COUNTING, str(tmp_path)]) for _ in range(3)
        ]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        assert DirectoryRecordStore(tmp_path).read() == b"300"

    def test_what_a_crash_left_half_written_is_not_read(self, tmp_path: Path) -> None:
        store = DirectoryRecordStore(tmp_path)
        store.swap(None, b"first")
        (tmp_path / "RECORD.tmp").write_bytes(b"sec")
        assert store.read() == b"first"
        assert store.swap(b"first", b"second")
        assert store.read() == b"second"

    def test_who_stopped_while_it_had_the_lock_stops_neither_reads_nor_others_for_ever(
        self, tmp_path: Path
    ) -> None:
        store = DirectoryRecordStore(tmp_path, lock_wait_s=0.1)
        store.swap(None, b"first")
        with (tmp_path / "RECORD.lock").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert store.read() == b"first"
            with pytest.raises(TimeoutError, match="not done") as refused:
                store.swap(b"first", b"second")
            assert not isinstance(refused.value, OutcomeUnknown)
        assert store.read() == b"first"
        assert store.swap(b"first", b"second")

    def test_what_cannot_be_written_has_not_been_done(self, tmp_path: Path) -> None:
        store = DirectoryRecordStore(tmp_path)
        store.swap(None, b"first")
        (tmp_path / "RECORD.tmp").mkdir()
        with pytest.raises(IsADirectoryError):
            store.swap(b"first", b"second")
        assert store.read() == b"first"


@pytest.fixture
def lease_server(tmp_path: Path) -> Iterator[LeaseServer]:
    with LeaseServer(tmp_path).serving() as server:
        yield server


def in_lease(server: LeaseServer) -> LeaseRecordStore:
    tls = ssl.create_default_context(cafile=str(server.authority))
    api = ApiServer(host="127.0.0.1", port=server.port, tls=tls, token=lambda: TOKEN)
    return LeaseRecordStore(api, "bank", "shop-shard-0")


class TestLeaseRecordStore(RecordStoreContract):
    @pytest.fixture
    def store(self, lease_server: LeaseServer) -> RecordStore:
        return in_lease(lease_server)

    def test_everything_else_of_the_lease_is_kept(self, lease_server: LeaseServer) -> None:
        assert lease_server.lease is not None
        lease_server.lease["metadata"]["annotations"] = {"of": "somebody"}
        lease_server.lease["metadata"]["ownerReferences"] = [{"uid": "u0"}]
        lease_server.lease["spec"] = {"holderIdentity": "nobody", "leaseDurationSeconds": 5}
        assert in_lease(lease_server).swap(None, b"first")
        held = lease_server.lease
        assert held["metadata"]["annotations"] == {"of": "somebody", ANNOTATION: "first"}
        assert held["metadata"]["ownerReferences"] == [{"uid": "u0"}]
        assert held["spec"] == {"holderIdentity": "nobody", "leaseDurationSeconds": 5}
        assert set(lease_server.tokens) == {f"Bearer {TOKEN}"}

    def test_a_mark_changes_nothing_of_what_people_see(self, lease_server: LeaseServer) -> None:
        assert in_lease(lease_server).mark(b'{"epoch":1}') == b'{"epoch":1}'
        assert lease_server.lease is not None
        assert lease_server.lease["metadata"]["annotations"] == {MARK: '{"epoch":1}'}
        assert not lease_server.lease.get("spec")

    def test_a_swap_that_meets_its_own_value_was_not_done(self, lease_server: LeaseServer) -> None:
        store = in_lease(lease_server)
        store.swap(None, b"first")
        assert not store.swap(None, b"first")

    def test_people_see_who_leads_and_in_which_epoch(self, lease_server: LeaseServer) -> None:
        holder = Holder(Seat(ReplicaId(2), DiskId(b"d" * 16)), 1)
        record = Record(
            b"c" * 16, ShardId(0), Epoch(7), holder, (holder.seat,), 1, ConfigVersion(9)
        )
        assert in_lease(lease_server).swap(None, encode_record(record))
        assert lease_server.lease is not None
        assert lease_server.lease["spec"] == {"holderIdentity": "replica-2", "leaseTransitions": 7}
        assert in_lease(lease_server).read() == encode_record(record)

    def test_a_lease_that_somebody_else_writes_is_swapped_when_its_record_is_the_same(
        self, lease_server: LeaseServer
    ) -> None:
        store = in_lease(lease_server)
        store.swap(None, b"first")
        lease_server.faults.extend([409, 409])
        assert store.swap(b"first", b"second")
        lease_server.faults.extend([409] * CONFLICTS_MAX)
        with pytest.raises(BlockingIOError):
            store.swap(b"second", b"third")
        assert store.read() == b"second"

    def test_a_lease_that_was_made_anew_is_not_the_one_that_was_read(
        self, lease_server: LeaseServer
    ) -> None:
        assert lease_server.lease is not None
        before = copy.deepcopy(lease_server.lease)
        lease_server.lease["metadata"]["uid"] = "u2"
        assert lease_server.put(before)[0] == 409

    def test_a_missing_lease_has_no_value_and_is_never_made(
        self, lease_server: LeaseServer
    ) -> None:
        lease_server.lease = None
        store = in_lease(lease_server)
        assert store.read() is None
        assert store.mark(None) is None
        with pytest.raises(FileNotFoundError):
            store.mark(b"ours")
        with pytest.raises(FileNotFoundError):
            store.swap(None, b"first")
        assert lease_server.lease is None

    @pytest.mark.parametrize(("fault", "landed"), [("lost", False), ("cut", True), (504, False)])
    def test_a_swap_without_an_answer_says_that_nothing_is_known(
        self, lease_server: LeaseServer, fault: str | int, landed: bool
    ) -> None:
        store = in_lease(lease_server)
        lease_server.faults.append(fault)
        with pytest.raises(OutcomeUnknown):
            store.swap(None, b"first")
        assert (store.read() == b"first") is landed

    def test_a_refused_swap_and_one_that_nobody_heard_were_not_done(
        self, lease_server: LeaseServer, tmp_path: Path
    ) -> None:
        store = in_lease(lease_server)
        lease_server.faults.append(403)
        with pytest.raises(PermissionError):
            store.swap(None, b"first")
        nobody = ApiServer(host="127.0.0.1", port=1, tls=ssl.create_default_context())
        with pytest.raises(OSError, match="Connection refused") as caught:
            LeaseRecordStore(nobody, "bank", "shop-shard-0").swap(None, b"first")
        assert not isinstance(caught.value, OutcomeUnknown)
        assert store.read() is None

    def test_a_pod_finds_its_api_server_and_reads_its_token_each_time(
        self, lease_server: LeaseServer, tmp_path: Path
    ) -> None:
        account = tmp_path / "account"
        account.mkdir()
        (account / "ca.crt").write_bytes(lease_server.authority.read_bytes())
        (account / "namespace").write_text("bank\n")
        environ = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(lease_server.port),
        }
        api = ApiServer.of_pod(environ, account)
        store = LeaseRecordStore(api, pod_namespace(account), "shop-shard-0")
        for token in ("one", "two"):
            (account / "token").write_text(f"{token}\n")
            store.read()
        assert lease_server.tokens == ["Bearer one", "Bearer two"]
