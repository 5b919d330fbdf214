"""What is refused before the log, and that one intent has one canonical form."""

import json
from typing import Any

import msgspec
import pytest

from ultraengine.domains.ledger import DOMAIN
from ultraengine.domains.ledger.amounts import read_amount, read_time, wire
from ultraengine.model.errors import EngineError, Malformed

ACCOUNT = {"id": "a", "asset": "USD/2"}
TRANSFER = {"id": "t", "from": "a", "to": "b", "amount": 1}
DAY = 86_400_000_000


def admit(bench: Any, name: str, data: Any, codec: str = "json") -> Any:
    encode = msgspec.json.encode if codec == "json" else msgspec.msgpack.encode
    return bench.registry.admit(
        id="c",
        type=f"ledger.{name}",
        key="k",
        data=data if isinstance(data, bytes) else encode(data),
        codec=codec,
        tenant="t",
        principal="p",
        scopes=frozenset({"ledger:write"}),
    )


@pytest.mark.parametrize(
    ("name", "data", "pointer"),
    [
        ("open_accounts", {"accounts": []}, "/data/accounts"),
        ("open_accounts", {"accounts": [ACCOUNT | {"id": "a b"}]}, "/data/accounts/0/id"),
        ("open_accounts", {"accounts": [ACCOUNT, ACCOUNT | {"id": "ä"}]}, "/data/accounts/1/id"),
        ("open_accounts", {"accounts": [ACCOUNT | {"asset": "usd/2"}]}, "/data/accounts/0/asset"),
        ("open_accounts", {"accounts": [ACCOUNT | {"asset": "USD"}]}, "/data/accounts/0/asset"),
        ("open_accounts", {"accounts": [ACCOUNT | {"asset": "USD/39"}]}, "/data/accounts/0/asset"),
        ("open_accounts", {"accounts": [ACCOUNT | {"asset": "USD/02"}]}, "/data/accounts/0/asset"),
        (
            "open_accounts",
            {"accounts": [ACCOUNT | {"min_balance": "x"}]},
            "/data/accounts/0/min_balance",
        ),
        (
            "open_accounts",
            {"accounts": [ACCOUNT | {"max_balance": str(10**38)}]},
            "/data/accounts/0/max_balance",
        ),
        (
            "open_accounts",
            {"accounts": [ACCOUNT | {"metadata": {"k": "v" * 4_096}}]},
            "/data/accounts/0/metadata",
        ),
        (
            "open_accounts",
            {"accounts": [ACCOUNT | {"metadata": {str(n): "" for n in range(33)}}]},
            "/data/accounts/0/metadata",
        ),
        ("create_transfers", {"transfers": [TRANSFER | {"from": ""}]}, "/data/transfers/0/from"),
        ("create_transfers", {"transfers": [TRANSFER | {"to": "/"}]}, "/data/transfers/0/to"),
        ("create_transfers", {"transfers": [TRANSFER | {"to": "x" * 129}]}, "/data/transfers/0/to"),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": 1.0}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": True}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": "1.0"}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": "1_0"}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": "+1"}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": "01"}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": "\u0661"}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": ""}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"amount": str(10**38)}]},
            "/data/transfers/0/amount",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER | {"pending_timeout_s": -1}]},
            "/data/transfers/0/pending_timeout_s",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER, TRANSFER | {"effective_time": "yesterday"}]},
            "/data/transfers/1/effective_time",
        ),
        ("create_transfers", {"transfers": [TRANSFER], "x": 1}, "/data"),
        ("create_transfers", {"transfers": [TRANSFER | {"x": 1}]}, "/data/transfers/0"),
        (
            "create_transfers",
            {"transfers": [TRANSFER], "if_versions": {"a b": 1}},
            "/data/if_versions",
        ),
        (
            "create_transfers",
            {"transfers": [TRANSFER], "if_versions": {"a": -1}},
            "/data/if_versions/...",
        ),
        ("post_transfers", {"transfers": [{"id": "!"}]}, "/data/transfers/0/id"),
        ("post_transfers", {"transfers": [{"id": "h", "amount": "x"}]}, "/data/transfers/0/amount"),
        (
            "post_transfers",
            {"transfers": [{"id": "h", "effective_time": "2026-13-01"}]},
            "/data/transfers/0/effective_time",
        ),
        ("void_transfers", {"transfers": [{"id": "!"}]}, "/data/transfers/0/id"),
        ("reverse_transfers", {"transfers": [{"id": "r"}]}, "/data/transfers/0"),
        (
            "reverse_transfers",
            {"transfers": [{"id": "r", "reverses": "!"}]},
            "/data/transfers/0/reverses",
        ),
        (
            "reverse_transfers",
            {"transfers": [{"id": "r", "reverses": "t", "effective_time": ""}]},
            "/data/transfers/0/effective_time",
        ),
        ("close_accounts", {"accounts": [{"id": "!"}]}, "/data/accounts/0/id"),
        ("reopen_accounts", {"accounts": [{"id": "!"}]}, "/data/accounts/0/id"),
    ],
)
def test_a_wrong_shape_is_refused_with_its_place(
    bench: Any, name: str, data: Any, pointer: str
) -> None:
    with pytest.raises(Malformed) as caught:
        admit(bench, name, data)
    assert caught.value.pointer == pointer


def test_a_number_beyond_json_integers_is_no_amount(bench: Any) -> None:
    text = json.dumps({"transfers": [TRANSFER]}).replace('"amount": 1', f'"amount": {10**38}')
    with pytest.raises(Malformed, match="below 10\\^38"):
        admit(bench, "create_transfers", text.encode())


def test_too_many_items_are_refused(bench: Any) -> None:
    with pytest.raises(EngineError) as caught:
        admit(bench, "create_transfers", {"transfers": [TRANSFER] * 1_001})
    assert caught.value.code == "TOO_LARGE"


@pytest.mark.parametrize("amount", [0, 1, -1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
def test_one_amount_has_one_form_in_the_log(bench: Any, amount: int) -> None:
    forms = [
        admit(bench, "create_transfers", {"transfers": [TRANSFER | {"amount": form}]}, codec)
        for codec in ("json", "msgpack")
        for form in (amount, str(amount))
    ]
    assert len({bytes(form.command.data) for form in forms}) == 1
    assert len({form.fingerprint for form in forms}) == 1


def test_one_intent_has_one_form_in_the_log(bench: Any) -> None:
    first = {
        "accounts": [{"id": "a", "asset": "USD/2", "metadata": {"x": "1", "y": "2"}}],
        "if_versions": {"p": 1, "q": 2},
    }
    second = {
        "if_versions": {"q": 2, "p": 1},
        "dry_run": False,
        "accounts": [
            {
                "metadata": {"y": "2", "x": "1"},
                "min_balance": "0",
                "linked": False,
                "max_balance": None,
                "asset": "USD/2",
                "id": "a",
            }
        ],
    }
    data = {
        bytes(admit(bench, "open_accounts", form, codec).command.data)
        for form in (first, second)
        for codec in ("json", "msgpack")
    }
    assert len(data) == 1


def test_the_form_in_the_log_decodes_to_itself(bench: Any) -> None:
    items = [TRANSFER | {"amount": str(10**30), "effective_time": "2026-01-01T00:00:00Z"}]
    admitted = admit(bench, "create_transfers", {"transfers": items})
    handler = admitted.handler
    again = handler.prepare(handler.decode(admitted.command))
    assert msgspec.msgpack.encode(again) == bytes(admitted.command.data)


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\xed\xa0\x80"'])
def test_text_that_is_not_unicode_is_refused(bench: Any, text: bytes) -> None:
    for member in (b'"reference"', b'"id"'):
        item = b'{"id":"t","from":"a","to":"b","amount":1,' + member + b":" + text + b"}"
        with pytest.raises(Malformed):
            admit(bench, "create_transfers", b'{"transfers":[' + item + b"]}")
    metadata = b'{"accounts":[{"id":"a","asset":"USD/2","metadata":{"k":' + text + b"}}]}"
    with pytest.raises(Malformed):
        admit(bench, "open_accounts", metadata)


@pytest.mark.parametrize(
    ("value", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-02", DAY),
        ("1970-01-01t00:00:01.5z", 1_500_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("0001-01-01", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        (253_402_300_799_999_999, 253_402_300_799_999_999),
        (-5, -5),
    ],
)
def test_times_are_read_exactly(value: Any, microseconds: int) -> None:
    assert read_time(value, "/x") == microseconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1970-01-01T00:00:00",
        "1970-01-01 00:00:00Z",
        "1970-1-1",
        "1970-02-30",
        "1970-01-01T24:00:00Z",
        "1970-01-01T23:59:60Z",
        "1970-01-01T00:00:00.1234567Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\u0661\u0669\u0667\u0660-01-01",
        253_402_300_800_000_000,
        -62_135_596_800_000_001,
    ],
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(Malformed):
        read_time(value, "/x")


def test_amounts_survive_their_wire_form() -> None:
    for size in (0, 1, 2**63 - 1, 2**63, 10**38 - 1):
        for amount in (size, -size):
            assert read_amount(wire(amount), "/x") == amount
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(wire(amount))) == wire(amount)


def test_every_example_for_documents_has_the_shape_of_its_command() -> None:
    specs = {spec.name: spec for spec in DOMAIN.commands}
    assert set(DOMAIN.examples) == set(specs)
    for name, data in DOMAIN.examples.items():
        spec = specs[name]
        decoded = msgspec.convert(data, spec.data)
        assert spec.prepare is not None
        spec.prepare(decoded)
