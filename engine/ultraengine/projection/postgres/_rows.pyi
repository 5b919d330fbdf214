from collections.abc import Sequence
from typing import Any

def encode(first: bytes, columns: bytes, rows: Sequence[Sequence[Any]], /) -> bytes: ...
