"""What `ultra gateway` is told: all mistakes at once, and no address that cannot be one."""

from pathlib import Path

import pytest

from ultraengine.config import ConfigErrors
from ultraengine.front.settings import AddressRefused, GatewaySettings, address_of
from ultraengine.model.ids import ShardId
from ultraengine.router.driver import Address

GOOD = {
    "ULTRA_MAP": "/map.json",
    "ULTRA_HOP_KEY": "/key",
    "ULTRA_SHARD_ADDRESS": "http://shop-shard-{shard}.default.svc:8080",
    "ULTRA_API_KEYS": "/keys",
}


def mistakes_of(environment: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigErrors) as refused:
        GatewaySettings.from_env(environment)
    return refused.value.mistakes


def test_settings_and_limits_are_read_by_name() -> None:
    more = {"ULTRA_LINGER_S": "0", "ULTRA_LIMIT_DRAIN_S": "3", "ULTRA_PORT": "80", "HOME": "/"}
    settings = GatewaySettings.from_env(GOOD | more)
    assert (settings.map, settings.hop_key) == (Path("/map.json"), Path("/key"))
    assert (settings.linger_s, settings.limits.drain_s, settings.port) == (0.0, 3.0, 80)
    assert (settings.keyless, settings.api_keys) == (False, Path("/keys"))


def test_what_is_missing_is_said_together() -> None:
    assert [one.partition(":")[0] for one in mistakes_of({})] == [
        "ULTRA_MAP",
        "ULTRA_SHARD_ADDRESS",
        "ULTRA_HOP_KEY",
        "ULTRA_API_KEYS",
    ]


def test_every_mistake_is_said_once() -> None:
    wrong = {
        "ULTRA_API_KEYS": "/keys",
        "ULTRA_KEYLESS": "yes",
        "ULTRA_DATA": "/data",
        "ULTRA_LINGER_S": "601",
        "ULTRA_MAP": "/map.json",
        "ULTRA_HOP_KEY": "/key",
        "ULTRA_SHARD_ADDRESS": "http://shop:8080",
        "ULTRA_LIMIT_DRAIN_S": "-1",
    }
    assert mistakes_of(wrong) == [
        "ULTRA_KEYLESS: 'yes' is not true or false",
        "ULTRA_LIMIT_DRAIN_S: -1.0 is negative",
        "ULTRA_DATA: no such setting",
        (
            "ULTRA_SHARD_ADDRESS: 'http://shop:8080' has no {shard}: every shard has an address "
            "of its own"
        ),
        "ULTRA_LINGER_S: 601 is not in 0..600",
    ]


def test_nobody_is_let_in_without_a_key_unless_it_is_said_in_so_many_words() -> None:
    without = {name: text for name, text in GOOD.items() if name != "ULTRA_API_KEYS"}
    for more in ({}, {"ULTRA_KEYLESS": "false"}):
        assert mistakes_of(without | more) == [
            "ULTRA_API_KEYS: needed; ULTRA_KEYLESS=true lets in whoever reaches the port"
        ]
    assert GatewaySettings.from_env(without | {"ULTRA_KEYLESS": "true"}).keyless
    assert mistakes_of(GOOD | {"ULTRA_KEYLESS": "true"}) == [
        "ULTRA_KEYLESS: there are ULTRA_API_KEYS; choose one of the two"
    ]


@pytest.mark.parametrize(
    ("template", "host", "port"),
    [
        ("http://shop-shard-{shard}.default.svc:8080", "shop-shard-12.default.svc", 8080),
        ("http://shop-shard-{shard}.default.svc.cluster.local.", None, 80),
        ("http://10.1.2.{shard}:90/", "10.1.2.12", 90),
        ("http://local_host:80{shard}", "local_host", 8012),
    ],
)
def test_an_address_has_the_number_of_its_shard(template: str, host: str | None, port: int) -> None:
    expected = host or "shop-shard-12.default.svc.cluster.local."
    assert address_of(template, ShardId(12)) == Address(host=expected, port=port)


@pytest.mark.parametrize(
    "template",
    [
        "shop-{shard}:8080",
        "https://shop-{shard}:8080",
        "http://{shard}:x",
        "http://:80{shard}",
        "http://shop-{shard}:99999",
        "http://shop:0?{shard}",
        "http://shop-{shard}:0",
        "http://shop-{shard}/path",
        "http://shop/{shard}",
        "http://me@shop-{shard}",
        "http://[::{shard}]:80",
        "http://[{shard}",
        "http://shop..{shard}:80",
        "http://.shop{shard}:80",
        "http://-shop{shard}:80",
        "http://shop{shard}-:80",
        "http://sh op{shard}:80",
        "http://shöp{shard}:80",
        "http://" + "x" * 62 + "{shard}:80",
        "http://" + "x." * 126 + "{shard}:80",
    ],
)
def test_what_no_resolver_takes_is_refused(template: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        address_of(template, ShardId(12))
    assert template[:20] in str(refused.value)
