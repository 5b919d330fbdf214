"""What every implementation of the Secrets port does."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ultraengine.ports import Secrets
from ultraengine.testing.sim_clock import SimSecrets
from ultraengine_adapters.local.secrets import FileSecrets


class Place(NamedTuple):
    """Secrets and the way a value gets there."""

    secrets: Secrets
    store: Callable[[str, bytes], object]


class SecretsContract:
    """Subclasses say which secrets."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        raise NotImplementedError

    def test_a_stored_value_is_returned_byte_by_byte(self, place: Place) -> None:
        for value in (b"k", bytes(range(32)), b"ends in a newline\n", b" spaces ", b"\xff\xfe"):
            if b"\0" in value and not isinstance(self, BinarySafe):
                continue  # An environment variable cannot hold NUL.
            place.store("key-1", value)
            assert place.secrets.get("key-1") == value

    def test_a_missing_name_is_a_key_error_with_the_name(self, place: Place) -> None:
        with pytest.raises(KeyError) as missing:
            place.secrets.get("absent.key")
        assert missing.value.args == ("absent.key",)

    @pytest.mark.parametrize("name", ["", "../key", "/etc/passwd", ".", "..", "a/b", "a\0b", "é"])
    def test_a_name_that_is_no_name_is_not_there(self, place: Place, name: str) -> None:
        with pytest.raises(KeyError):
            place.secrets.get(name)

    def test_a_value_that_changes_is_seen_at_the_next_call(self, place: Place) -> None:
        place.store("key", b"before")
        assert place.secrets.get("key") == b"before"
        place.store("key", b"after")
        assert place.secrets.get("key") == b"after"


class BinarySafe:
    """Marks places that hold any bytes."""


class TestSecretsInFiles(BinarySafe, SecretsContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(FileSecrets(tmp_path, {}), lambda name, v: (tmp_path / name).write_bytes(v))


class TestSecretsInTheEnvironment(SecretsContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        environment: dict[str, str] = {}

        def store(name: str, value: bytes) -> None:
            variable = "ULTRA_SECRET_" + name.upper().replace("-", "_")
            environment[variable] = value.decode("utf-8", "surrogateescape")

        return Place(FileSecrets(tmp_path / "nowhere", environment), store)


class TestSimSecrets(BinarySafe, SecretsContract):
    @pytest.fixture
    def place(self) -> Place:
        secrets = SimSecrets({})
        return Place(secrets, secrets.values.__setitem__)
