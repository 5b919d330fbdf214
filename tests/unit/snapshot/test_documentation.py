"""The examples of `docs/snapshots.md` do what the text says."""

import re
from pathlib import Path
from typing import Any

import pytest

from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine.testing.snapshot_codecs import SnapshotCodecContract
from ultraengine_adapters.local.disk import LocalDisk

DOCUMENT = Path(__file__).parents[3] / "docs" / "snapshots.md"


def example() -> Any:
    """The codec of the document."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(blocks[0], str(DOCUMENT), "exec"), names)  # noqa: S102  (our own document)
    return names["ReversedCodec"]


class TestTheCodecOfTheDocument(SnapshotCodecContract):
    def new_codec(self) -> Any:
        return example()()


async def test_a_shard_can_use_it(harness: Any, local: LocalDisk) -> None:
    bench = harness(local, codecs=Codecs([example()()]), codec=64)
    bench.driver.recover()
    bench.fill(100)
    taken = await bench.driver.take(bench.image, bench.position(), "fork")
    assert taken.entry.codec == 64
    content = bench.image.content()
    bench.restart()
    assert bench.image.content() == content


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("increments_max", "8"),
        ("increments_share_max", "1.0"),
        ("fulls_kept", "2"),
        ("captured_bytes_max", "256 MiB"),
        ("child_s_max", "900 s"),
        ("free_bytes_min", "64 MiB"),
    ],
)
def test_the_defaults_are_the_documented_ones(option: str, shown: str) -> None:
    number, _, unit = shown.partition(" ")
    value = float(number) * {"": 1, "s": 1, "MiB": 2**20}[unit]
    fields = dict(
        zip(
            SnapshotOptions.__struct_fields__[-len(SnapshotOptions.__struct_defaults__) :],
            SnapshotOptions.__struct_defaults__,
            strict=True,
        )
    )
    assert fields[option] == value
    assert re.search(rf"\| `{option}` \| {re.escape(shown)}", DOCUMENT.read_text())
