"""Locations of object stores: what they mean, and what is refused."""

from pathlib import Path

import pytest

from ultraengine_adapters.local.object_store import DirectoryObjectStore
from ultraengine_adapters.object_stores import below, check_location, open_store
from ultraengine_adapters.s3.location import S3Location


def test_a_location_names_bucket_prefix_and_options() -> None:
    found = S3Location.parse(
        "s3://bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu-1&sse=aws:kms&kms_key=k&profile=p"
    )
    assert found == S3Location(
        bucket="bucket", prefix="a/b/", endpoint="http://127.0.0.1:9000", region="eu-1",
        sse="aws:kms", kms_key="k", profile="p",
    )  # fmt: skip
    assert S3Location.parse("s3://bucket") == S3Location(bucket="bucket")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3:///prefix", "is not s3://bucket/prefix"),
        ("http://bucket/x", "is not s3://bucket/prefix"),
        ("s3://key:secret@bucket/x", "credentials come from"),
        ("s3://bucket/a//b", "is empty or has only dots"),
        ("s3://bucket/../b", "is empty or has only dots"),
        ("s3://bucket/?secret=x", "there is no option 'secret'"),
        ("s3://bucket/?bucket=x", "there is no option 'bucket'"),
        ("s3://bucket/?sse=none", "sse is AES256 or aws:kms"),
        ("s3://bucket/?sse=AES256&kms_key=k", "kms_key goes with"),
        ("s3://bucket/?endpoint=127.0.0.1:9000", "endpoint is http"),
    ],
)
def test_a_wrong_location_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="s3") as refused:
        S3Location.parse(text)
    assert said in str(refused.value)


def test_a_directory_is_a_store_by_path_or_url(tmp_path: Path) -> None:
    for location in (str(tmp_path / "a"), f"file://{tmp_path}/b"):
        store = open_store(location)
        assert isinstance(store, DirectoryObjectStore)
        store.put("x", b"1")
    assert (tmp_path / "a/x").read_bytes() == (tmp_path / "b/x").read_bytes() == b"1"
    open_store(str(tmp_path / "none"), changes=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("location", ["", "file://", "gs://bucket", "https://host/x"])
def test_what_is_no_store_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"is empty|is neither s3://bucket/prefix nor a directory"):
        check_location(location)


def test_a_folder_in_a_location_keeps_its_options() -> None:
    assert below("s3://b/p?region=x", "shard-0001") == "s3://b/p/shard-0001?region=x"
    assert below("s3://b", "shard-0001") == "s3://b/shard-0001"
    assert below("/srv/archive", "shard-0001") == "/srv/archive/shard-0001"
