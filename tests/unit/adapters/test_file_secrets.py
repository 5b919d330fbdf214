"""Where secrets are looked for, and how they are read."""

import base64
from pathlib import Path

import pytest

from ultraengine_adapters.local.secrets import SECRET_BYTES_MAX, FileSecrets


def test_a_file_comes_before_the_environment(tmp_path: Path) -> None:
    secrets = FileSecrets(tmp_path, {"ULTRA_SECRET_KEY": "from the environment"})
    assert secrets.get("key") == b"from the environment"
    (tmp_path / "key").write_bytes(b"from the file")
    assert secrets.get("key") == b"from the file"
    (tmp_path / "key").unlink()
    assert secrets.get("key") == b"from the environment"


def test_no_directory_means_the_environment_alone() -> None:
    assert FileSecrets(None, {"ULTRA_SECRET_A_B_C": "x"}).get("a.b-c") == b"x"


@pytest.mark.parametrize("key", [bytes(32), b"\x0a" * 32, bytes(range(32))])
def test_encoded_values_are_decoded_with_the_newline_an_editor_left(
    tmp_path: Path, key: bytes
) -> None:
    secrets = FileSecrets(tmp_path, {"ULTRA_SECRET_E": f"hex:{key.hex()}"})
    (tmp_path / "b").write_bytes(b"base64:" + base64.b64encode(key) + b"\n")
    (tmp_path / "h").write_bytes(b" hex:" + key.hex().upper().encode() + b"\r\n")
    (tmp_path / "raw").write_bytes(key)
    for name in ("b", "h", "raw", "e"):
        assert secrets.get(name) == key


@pytest.mark.parametrize("value", ["base64:sec*ret", "base64:c2Vj=cmV0a", "hex:5ec", "hex:secret"])
def test_a_value_that_does_not_decode_is_refused_without_showing_it(
    tmp_path: Path, value: str
) -> None:
    (tmp_path / "key").write_text(value)
    with pytest.raises(ValueError, match="'key' is not what its prefix says") as refused:
        FileSecrets(tmp_path, {}).get("key")
    assert refused.value.__cause__ is None
    assert "sec" not in str(refused.value).removeprefix("the secret")


@pytest.mark.parametrize("value", [b"", b"hex:", b"base64:\n"])
def test_an_empty_secret_is_refused(tmp_path: Path, value: bytes) -> None:
    (tmp_path / "key").write_bytes(value)
    with pytest.raises(ValueError, match="'key' is empty"):
        FileSecrets(tmp_path, {}).get("key")


def test_a_file_that_is_too_large_for_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"x" * SECRET_BYTES_MAX)
    assert len(FileSecrets(tmp_path, {}).get("key")) == SECRET_BYTES_MAX
    (tmp_path / "key").write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(ValueError, match=f"larger than {SECRET_BYTES_MAX}"):
        FileSecrets(tmp_path, {}).get("key")


def test_hidden_files_of_a_mounted_secret_are_no_secrets(tmp_path: Path) -> None:
    (tmp_path / ".data").write_bytes(b"x")
    with pytest.raises(KeyError):
        FileSecrets(tmp_path, {}).get(".data")


def test_a_file_that_cannot_be_read_is_an_error_and_not_an_absence(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        FileSecrets(tmp_path, {"ULTRA_SECRET_KEY": "x"}).get("key")
