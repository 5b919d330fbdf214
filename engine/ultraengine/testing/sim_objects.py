"""The ObjectStore port in memory."""

import threading
from collections.abc import Iterable, Sequence


class SimObjectStore:
    """Blobs in a dictionary; it outlives simulated machines.  Safe to use from threads."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._mutex = threading.Lock()

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        """Store.  Raises FileExistsError when `if_absent` and it is there, ValueError for a
        name with an empty part or one that starts with '.', as a directory would."""
        if "\0" in name or any(not part or part.startswith(".") for part in name.split("/")):
            raise ValueError(f"{name!r} is not a name of a blob")
        with self._mutex:
            if if_absent and name in self._blobs:
                raise FileExistsError(name)
            self._blobs[name] = bytes(data)

    def put_stream(self, name: str, chunks: Iterable[bytes]) -> None:
        """Store the concatenation of chunks."""
        self.put(name, b"".join(chunks))

    def get(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        with self._mutex:
            if name not in self._blobs:
                raise FileNotFoundError(name)
            return self._blobs[name]

    def get_range(self, name: str, position: int, length: int) -> bytes:
        """A part of a blob.  Raises FileNotFoundError."""
        return self.get(name)[position : position + length]

    def size(self, name: str) -> int:
        """Length in bytes.  Raises FileNotFoundError."""
        return len(self.get(name))

    def list(self, prefix: str) -> Sequence[str]:
        """Names with the prefix, sorted."""
        with self._mutex:
            return sorted(name for name in self._blobs if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Remove; no error when it is not there."""
        with self._mutex:
            self._blobs.pop(name, None)
