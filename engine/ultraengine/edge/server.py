"""Connections of a listener on aiohttp's low-level server, and key files that change."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ultraengine.edge.auth import ApiKeys, KeyFileError, KeyTable, TenantQuota
from ultraengine.edge.problems import problem_answer
from ultraengine.edge.quota import Quotas
from ultraengine.edge.routes import to_response
from ultraengine.model.errors import EngineError
from ultraengine.ports import Clock

KEEP_ALIVE_S: Final = 75.0
LINGER_S: Final = 1.0
"""Longest time for which the rest of a refused body is read, so that the answer arrives."""
KEY_FILE_BYTES_MAX: Final = 4 * 1024 * 1024
_log = structlog.get_logger("ultraengine.edge")


class _Protocol(RequestHandler):
    """aiohttp's connection, with problem documents for what is not even a request."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no HTTP, or to a failure outside all handlers."""
        if status < 500:
            error = EngineError((message or "not an HTTP request")[:300], code="MALFORMED")
        else:
            _log.error("connection.failed", error=repr(exc))
            error = EngineError("the edge failed")
        return to_response(request, problem_answer(error), close=True)


class Server(web.Server):
    """aiohttp's low-level server, counting its connections for the door."""

    def __call__(self) -> RequestHandler:
        return _Protocol(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to say: none.
        )

    @property
    def open_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)


class KeyFile:
    """API keys from a file that may change while the process runs."""

    def __init__(
        self,
        path: Path,
        identity: ApiKeys,
        on_quotas: Callable[[Mapping[str, TenantQuota]], None],
    ) -> None:
        """`on_quotas` is told the tenants' own quotas at each change."""
        self.path = path
        self._identity = identity
        self._on_quotas = on_quotas
        self._seen = _stamp(path)

    @staticmethod
    def read(path: Path) -> KeyTable:
        """Parse the file.  Raises `KeyFileError`, OSError."""
        with path.open("rb") as file:
            content = file.read(KEY_FILE_BYTES_MAX + 1)
        if len(content) > KEY_FILE_BYTES_MAX:
            raise KeyFileError(f"the key file is larger than {KEY_FILE_BYTES_MAX} bytes")
        return KeyTable.parse(content)

    def reload(self) -> bool | None:
        """Take the file if it changed: True; False when it cannot be used (the old keys stay
        in force, and it is tried again at its next change); None when it is as it was."""
        stamp = _stamp(self.path)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            table = self.read(self.path)
        except (KeyFileError, OSError) as error:
            _log.error("keys.unusable", path=str(self.path), error=str(error))
            return False
        self._identity.table = table
        self._on_quotas(table.quotas)
        _log.info("keys.loaded", path=str(self.path), keys=len(table.known))
        return True


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def let_in(table: KeyTable, path: Path, clock: Clock, quotas: Quotas) -> tuple[ApiKeys, KeyFile]:
    """Who has a key of the file at `path`: `table` now, and it is read again when it changes."""
    keys = ApiKeys(table, clock)
    quotas.replace(table.quotas)
    return keys, KeyFile(path, keys, quotas.replace)
