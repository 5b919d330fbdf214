"""What the images set is taken by every program in them."""

import re
from pathlib import Path

from ultraengine.config import Config
from ultraengine.front.settings import GatewaySettings

ROOT = Path(__file__).parents[2]


def settings_of(image: str) -> dict[str, str]:
    """The ULTRA_* variables that an image sets."""
    text = (ROOT / f"Dockerfile.{image}").read_text()
    return dict(re.findall(r"^(?:ENV)?\s+(ULTRA_\w+)=(\S+)", text, re.MULTILINE))


def test_a_shard_and_a_gateway_take_what_the_engines_image_sets() -> None:
    found = settings_of("engine")
    assert found == {"ULTRA_HOST": "0.0.0.0"}  # noqa: S104 (what the image is to say)
    assert Config.from_env(found).host == found["ULTRA_HOST"]
    gateway = {
        "ULTRA_MAP": "map", "ULTRA_HOP_KEY": "key", "ULTRA_KEYLESS": "true",
        "ULTRA_SHARD_ADDRESS": "http://shard-{shard}:8080",
    }  # fmt: skip
    assert GatewaySettings.from_env({**gateway, **found}).host == found["ULTRA_HOST"]
