"""API keys, the loopback, scopes."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.gateway.conftest import START, CountingRandom, StillClock

from ultraengine.edge.auth import (
    Anybody,
    ApiKeys,
    KeyEntry,
    KeyFileError,
    KeyTable,
    KnownCaller,
    Loopback,
    entry_text,
    issue_key,
    require_admin,
    require_feed,
    require_scope,
)
from ultraengine.model.errors import EngineError

RANDOM = CountingRandom()
NOW = datetime.fromtimestamp(START / 1e6, UTC)


def made(
    tenant: str = "acme",
    principal: str = "till-7",
    scopes: tuple[str, ...] = ("ledger:write",),
    expires: datetime | None = None,
) -> tuple[str, KeyEntry]:
    return issue_key(
        RANDOM, tenant=tenant, principal=principal, scopes=list(scopes), expires=expires
    )


def table(*entries: KeyEntry, more: str = "") -> KeyTable:
    return KeyTable.parse(("".join(map(entry_text, entries)) + more).encode())


def test_a_key_is_known_by_what_the_file_keeps_of_it_and_the_file_keeps_no_secret() -> None:
    key, entry = made()
    text = entry_text(entry)
    assert key not in text
    assert key[-43:] not in text
    caller = ApiKeys(table(entry), StillClock()).authenticate(
        {"authorization": f"Bearer {key}"}, peer_is_loopback=False
    )
    assert caller == KnownCaller("acme", "till-7", frozenset({"ledger:write"}), entry.prefix)


def test_keys_are_long_and_never_repeat() -> None:
    keys = {made()[0] for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == len("ultra_12345678_") + 43 for key in keys)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwdw==",
        "Bearer ultra_aaaaaaaa_" + "A" * 43,
        "Bearer ultra_aaaaaaaa",
        "Bearer \u00fc",
    ],
)
def test_what_is_no_known_key_is_refused(header: str | None) -> None:
    identity = ApiKeys(table(made()[1]), StillClock())
    headers = {} if header is None else {"authorization": header}
    with pytest.raises(EngineError) as caught:
        identity.authenticate(headers, peer_is_loopback=True)
    assert caught.value.code == "UNAUTHENTICATED"


def test_the_secret_of_one_key_does_not_open_another() -> None:
    (first, one), (second, two) = made(), made(principal="other")
    mixed = second[:-43] + first[-43:]
    assert table(one, two).find(second, START).principal == "other"
    with pytest.raises(EngineError):
        table(one, two).find(mixed, START)


def test_a_key_ends_when_it_expires() -> None:
    key, entry = made(expires=NOW + timedelta(seconds=10))
    clock = StillClock()
    identity = ApiKeys(table(entry), clock)
    headers = {"authorization": f"bearer {key}"}
    identity.authenticate(headers, peer_is_loopback=False)
    clock.advance(9.999999)
    identity.authenticate(headers, peer_is_loopback=False)
    clock.advance(0.000001)
    with pytest.raises(EngineError, match="expired"):
        identity.authenticate(headers, peer_is_loopback=False)


def test_two_keys_of_a_principal_live_side_by_side_for_rotation_and_a_third_is_a_mistake() -> None:
    entries = [made() for _ in range(3)]
    both = table(entries[0][1], entries[1][1])
    for key, _ in entries[:2]:
        assert both.find(key, START).principal == "till-7"
    with pytest.raises(KeyFileError, match="more than 2 keys"):
        table(*(entry for _, entry in entries))


def test_all_mistakes_of_a_file_are_reported_together() -> None:
    _, entry = made()
    bad = KeyEntry(entry.prefix, entry.sha256, "system", "a b", ["ledger", "*:read", "admin"])
    with pytest.raises(KeyFileError) as caught:
        table(entry, bad, more='[tenants."a b"]\ncommands_per_s = 1\nburst = 1\n')
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "keys[1]",
        "keys[1]",
        "keys[1]",
        "keys[1]",
        "tenants",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "keys = 5",
        "not toml",
        "[[keys]]\nprefix = 'short'",
        "[[keys]]\nunknown = 1",
        "other = 1",
        "[tenants.acme]\ncommands_per_s = -1\nburst = 5",
        "\xff",
    ],
)
def test_a_file_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(KeyFileError):
        KeyTable.parse(text.encode("latin-1"))


def test_an_empty_file_knows_nobody() -> None:
    assert KeyTable.parse(b"").known == {}


def test_tenants_may_have_quotas_in_the_file() -> None:
    parsed = KeyTable.parse(b"[tenants.acme]\ncommands_per_s = 5000\nburst = 10\n")
    assert (parsed.quotas["acme"].commands_per_s, parsed.quotas["acme"].burst) == (5000, 10)


LOCAL = Loopback()


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8080"},
        {"host": "127.0.0.1:8080"},
        {"host": "[::1]:8080"},
        {"host": "LOCALHOST"},
        {"host": "localhost:8080", "origin": "http://localhost:8080"},
    ],
)
def test_the_machine_itself_needs_no_key(headers: dict[str, str]) -> None:
    caller = LOCAL.authenticate(headers, peer_is_loopback=True)
    assert (caller.tenant, caller.principal) == ("default", "loopback")
    assert caller.scopes == {"*:read", "*:write", "admin"}


@pytest.mark.parametrize(
    ("headers", "local", "code"),
    [
        ({"host": "localhost"}, False, "UNAUTHENTICATED"),
        ({"host": "localhost", "x-forwarded-for": "10.1.1.1"}, True, "UNAUTHENTICATED"),
        ({"host": "localhost", "forwarded": "for=10.1.1.1"}, True, "UNAUTHENTICATED"),
        ({"host": "evil.example:8080"}, True, "FORBIDDEN"),
        ({"host": "localhost.evil.example"}, True, "FORBIDDEN"),
        ({"host": "127.0.0.1@evil.example"}, True, "FORBIDDEN"),
        ({"host": "["}, True, "FORBIDDEN"),
        ({}, True, "FORBIDDEN"),
        ({"host": "localhost:8080", "origin": "http://evil.example"}, True, "FORBIDDEN"),
        ({"host": "localhost:8080", "origin": "http://localhost:3000"}, True, "FORBIDDEN"),
        ({"host": "localhost:8080", "origin": "null"}, True, "FORBIDDEN"),
    ],
)
def test_other_machines_and_web_pages_of_others_are_no_local_callers(
    headers: dict[str, str], local: bool, code: str
) -> None:
    with pytest.raises(EngineError) as caught:
        LOCAL.authenticate(headers, peer_is_loopback=local)
    assert caught.value.code == code


def test_scopes_are_per_domain_and_verb_and_a_star_is_any_domain() -> None:
    one = KnownCaller("t", "p", frozenset({"ledger:read"}))
    require_scope(one, "ledger", "read")
    for domain, verb in (("ledger", "write"), ("counter", "read")):
        with pytest.raises(EngineError) as caught:
            require_scope(one, domain, verb)
        assert caught.value.code == "FORBIDDEN"
        assert f"{domain}:{verb}" in caught.value.detail
    require_scope(KnownCaller("t", "p", frozenset({"*:write"})), "any", "write")


def test_admin_is_a_scope_of_its_own() -> None:
    require_admin(KnownCaller("t", "p", frozenset({"admin"})))
    with pytest.raises(EngineError) as caught:
        require_admin(KnownCaller("t", "p", frozenset({"*:read", "*:write"})))
    assert caught.value.code == "FORBIDDEN"


# --- a network that is trusted as a whole ----------------------------------------------------

OPEN = Anybody()


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "shop-gateway"},
        {"host": "shop-gateway:8080", "origin": "http://shop-gateway:8080"},
        {"host": "localhost", "x-forwarded-for": "10.1.1.1"},
        {"host": "127.0.0.1:8080", "forwarded": "for=10.1.1.1"},
        {},
    ],
)
def test_whoever_reaches_a_keyless_gateway_may_all_but_administer(
    headers: dict[str, str], local: bool
) -> None:
    caller = OPEN.authenticate(headers, peer_is_loopback=local)
    assert (caller.tenant, caller.principal) == ("default", "anybody")
    require_scope(caller, "ledger", "write")
    require_scope(caller, "ledger", "read")
    require_feed(caller)
    with pytest.raises(EngineError, match="scope admin"):
        require_admin(caller)


def test_a_host_that_says_localhost_is_not_believed_from_afar() -> None:
    caller = OPEN.authenticate({"host": "localhost"}, peer_is_loopback=False)
    assert caller.principal == "anybody"


def test_the_pods_own_loopback_administers_a_keyless_gateway() -> None:
    caller = OPEN.authenticate({"host": "localhost:8081"}, peer_is_loopback=True)
    assert caller == LOCAL.authenticate({"host": "localhost:8081"}, peer_is_loopback=True)
    require_admin(caller)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("host", ["shop-gateway", "localhost"])
def test_a_web_page_of_another_site_does_not_reach_a_keyless_gateway(
    host: str, local: bool
) -> None:
    with pytest.raises(EngineError) as refused:
        OPEN.authenticate({"host": host, "origin": "http://evil.example"}, peer_is_loopback=local)
    assert refused.value.code == "FORBIDDEN"
