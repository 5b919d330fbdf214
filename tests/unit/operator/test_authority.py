"""Certificates of copies: who signs, what is due when, and a change that leaves nobody out."""

import itertools
import ssl
import time
from pathlib import Path
from typing import Final

import pytest
from tests.unit.operator.memory import MemoryCluster

from ultraengine_operator import names
from ultraengine_operator.actions import IssueCertificate, MakeAuthority, TurnAuthority
from ultraengine_operator.authority import (
    AUTHORITY_RENEW_S,
    AUTHORITY_S,
    CERTIFICATE,
    DAY_S,
    KEY,
    LEAF_RENEW_S,
    LEAF_S,
    SPREAD_S,
    TRUSTED,
    SeenAuthority,
    SeenLeaf,
    Step,
    is_due,
    next_step,
    read_authority,
    read_leaf,
)
from ultraengine_operator.drivers.signing import (
    Files,
    Signer,
    first_files,
    issued_files,
    turned_files,
)

NOW_S: Final = 1_800_000_000.0
HOSTS: Final = names.replica_hosts("default", "shop", 0, 3)


class Trust:
    """An authority and the certificate of one shard's copies, as files."""

    def __init__(self) -> None:
        self.files = first_files("shop-ca", NOW_S)
        self.asked = ""
        self.leaf_files = issued_files(self.files, HOSTS, NOW_S)

    @property
    def authority(self) -> SeenAuthority:
        found = read_authority(self.files, {names.ROTATE: self.asked}, "1")
        assert found is not None
        return found

    @property
    def leaf(self) -> SeenLeaf:
        found = read_leaf("shop-shard-0-tls", self.leaf_files, "1")
        assert found is not None
        return found

    def due(self, now_s: float) -> bool:
        return is_due(self.leaf, self.authority, HOSTS, now_s)

    def step(self, now_s: float, asked: str = "") -> Step | None:
        return next_step(self.authority, [self.leaf], asked=asked, now_s=now_s)

    def turn(self, step: Step, now_s: float) -> None:
        self.files = turned_files(self.files, step, "shop-ca", now_s)

    def issue(self, now_s: float) -> None:
        self.leaf_files = issued_files(self.files, HOSTS, now_s)


def shaken(server: Files, client: Files, host: str, directory: Path) -> bool:
    """Whether two copies with these files let each other in, as `replication.link` has it."""

    def context(files: Files, purpose: ssl.Purpose) -> ssl.SSLContext:
        for name, content in files.items():
            (directory / name).write_bytes(content)
        made = ssl.create_default_context(purpose, cafile=str(directory / TRUSTED))
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_cert_chain(directory / CERTIFICATE, directory / KEY)
        return made

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    listens = context(server, ssl.Purpose.CLIENT_AUTH).wrap_bio(
        to_server, to_client, server_side=True
    )
    dials = context(client, ssl.Purpose.SERVER_AUTH).wrap_bio(
        to_client, to_server, server_hostname=host
    )
    try:
        for _ in range(8):
            for side in (dials, listens):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        dials.write(b"x")
        return listens.read(1) == b"x"
    except ssl.SSLError:
        return False


@pytest.fixture
def trust() -> Trust:
    return Trust()


@pytest.fixture
def of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes go by the machine's clock."""
    monkeypatch.setitem(globals(), "NOW_S", time.time())


def test_copies_let_each_other_in_by_every_stable_name_and_no_other(
    of_now: None, tmp_path: Path
) -> None:
    trust = Trust()
    for host in HOSTS:
        assert shaken(trust.leaf_files, trust.leaf_files, host, tmp_path)
    assert not shaken(trust.leaf_files, trust.leaf_files, "shop-gateway", tmp_path)
    assert not shaken(trust.leaf_files, Trust().leaf_files, HOSTS[0], tmp_path)


def test_a_certificate_is_renewed_long_before_it_ends(trust: Trust) -> None:
    assert not trust.due(NOW_S)
    until_s = NOW_S + LEAF_S
    assert trust.leaf.certificate.until_s == until_s
    assert not trust.due(until_s - LEAF_RENEW_S - 1)
    assert trust.due(until_s - LEAF_RENEW_S + 1)


def test_a_certificate_for_other_names_or_that_is_missing_is_due(trust: Trust) -> None:
    assert is_due(None, trust.authority, HOSTS, NOW_S)
    assert is_due(trust.leaf, trust.authority, HOSTS[:2], NOW_S)
    assert not is_due(trust.leaf, trust.authority, tuple(reversed(HOSTS)), NOW_S)


def test_no_certificate_outlives_who_signed_it(trust: Trust) -> None:
    late_s = NOW_S + AUTHORITY_S - DAY_S
    trust.issue(late_s)
    assert trust.leaf.certificate.until_s == trust.authority.signer.until_s


@pytest.mark.parametrize("reason", ["age", "wish"])
def test_an_authority_changes_in_steps_that_each_wait_for_the_one_before(
    trust: Trust, reason: str
) -> None:
    asked, now_s = ("", NOW_S + AUTHORITY_S - AUTHORITY_RENEW_S + 1)
    if reason == "wish":
        asked, now_s = "2026-11-30", NOW_S + DAY_S
    trust.issue(now_s - SPREAD_S)
    old = trust.leaf_files
    assert trust.step(now_s, asked) is Step.ANNOUNCE
    trust.turn(Step.ANNOUNCE, now_s)
    trust.asked = asked
    assert trust.step(now_s + 9 * SPREAD_S, asked) is None, "no copy trusts the next one yet"
    assert trust.due(now_s)
    trust.issue(now_s)
    both = trust.leaf_files
    assert trust.step(now_s + SPREAD_S - 1, asked) is None
    now_s += SPREAD_S
    assert trust.step(now_s, asked) is Step.PROMOTE
    trust.turn(Step.PROMOTE, now_s)
    assert trust.due(now_s)
    assert trust.step(now_s + 9 * SPREAD_S, asked) is None, "a copy still shows the old one's"
    trust.issue(now_s)
    assert trust.step(now_s + SPREAD_S - 1, asked) is None
    now_s += SPREAD_S
    assert trust.step(now_s, asked) is Step.RETIRE
    trust.turn(Step.RETIRE, now_s)
    assert trust.due(now_s)
    trust.issue(now_s)
    assert trust.step(now_s, asked) is None
    assert not trust.due(now_s)
    assert len({files[TRUSTED] for files in (old, both, trust.leaf_files)}) == 3


def test_through_a_change_neighbours_in_time_let_each_other_in(
    of_now: None, tmp_path: Path
) -> None:
    trust = Trust()
    stages = [trust.leaf_files]
    for step in Step:
        trust.turn(step, NOW_S)
        trust.issue(NOW_S)
        stages.append(trust.leaf_files)
    for before, after in itertools.pairwise(stages):
        assert shaken(before, after, HOSTS[0], tmp_path)
        assert shaken(after, before, HOSTS[0], tmp_path)
    assert not shaken(stages[0], stages[-1], HOSTS[0], tmp_path)


def test_secrets_that_say_something_else_are_none_of_ours(trust: Trust) -> None:
    assert read_authority({CERTIFICATE: b"x"}, {}, "1") is None
    assert read_authority({}, {}, "1") is None
    assert read_leaf("a", {**trust.leaf_files, TRUSTED: b""}, "1") is None


async def test_who_comes_second_with_a_secret_sees_the_first_ones() -> None:
    signer = Signer(MemoryCluster())
    manifest = {"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "shop-ca", "namespace": "default"}}  # fmt: skip
    first = await signer.do("default", MakeAuthority(manifest), NOW_S)
    assert first is not None
    assert await signer.do("default", MakeAuthority(manifest), NOW_S) == first
    leaf = {**manifest, "metadata": {"name": "shop-shard-0-tls", "namespace": "default"}}
    issued = await signer.do("default", IssueCertificate(leaf, "shop-ca", HOSTS, None), NOW_S)
    assert issued is not None
    late = await signer.do("default", IssueCertificate(leaf, "shop-ca", HOSTS, "0"), NOW_S)
    assert late == issued
    version = first["metadata"]["resourceVersion"]
    turned = await signer.do(
        "default", TurnAuthority("shop-ca", version, Step.ANNOUNCE, "now"), NOW_S
    )
    assert turned is not None
    assert turned["metadata"]["annotations"] == {names.ROTATE: "now"}
    stale = await signer.do(
        "default", TurnAuthority("shop-ca", version, Step.ANNOUNCE, "later"), NOW_S
    )
    assert stale == turned
