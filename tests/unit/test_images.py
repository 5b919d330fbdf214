"""What the images set is taken by every program in them, and what ends them reaches it."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("image", "program"), [("engine", "ultra"), ("operator", "ultra-operator")]
)
def test_a_program_is_not_the_first_process_of_its_container(image: str, program: str) -> None:
    text = (ROOT / f"Dockerfile.{image}").read_text()
    assert f'ENTRYPOINT ["tini", "--", "{program}"]' in text
    assert (
        "install --yes --no-install-recommends tini" in text.rpartition("FROM ${BASE_IMAGE}\n")[2]
    )
