"""``/openapi.json`` and ``/docs``: the contract for programs and for people.

Both are made once at the start.  The page needs no network: one HTML file, one script, one
style sheet, all beside this module.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from aiohttp.web import BaseRequest

from ultraengine.edge.codec import JSON, JSON_TYPE
from ultraengine.edge.problems import Answer
from ultraengine.edge.routes import Endpoint, Route, Surface, matches

_PAGES: Final = (
    ("/docs", "docs.html", "text/html; charset=utf-8"),
    ("/docs/docs.js", "docs.js", "text/javascript; charset=utf-8"),
    ("/docs/docs.css", "docs.css", "text/css; charset=utf-8"),
)
_SECURITY: Final = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class Documents:
    """The documents of one listener."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.openapi = JSON.encode(document)

    def add_to(self, surface: Surface) -> None:
        """Serve the documents; they hold nothing secret and need no key."""
        surface["/openapi.json"] = Route("/openapi.json", GET=_static(self.openapi, JSON_TYPE))
        files = resources.files("ultraengine.edge") / "static"
        for path, name, kind in _PAGES:
            surface[path] = Route("/docs", GET=_static((files / name).read_bytes(), kind))
        surface["/"] = Route("/", GET=_to_docs)


def _static(body: bytes, content_type: str) -> Endpoint:
    tag = f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"'
    headers = (("ETag", tag), ("Cache-Control", "no-cache"), *_SECURITY)

    async def answer(request: BaseRequest, _segments: list[str]) -> Answer:
        known = request.headers.get("If-None-Match")
        if known is not None and matches(known, tag):
            return Answer(304, b"", content_type, headers)
        return Answer(200, body, content_type, headers)

    return answer


async def _to_docs(_request: BaseRequest, _segments: list[str]) -> Answer:
    return Answer(307, b"", "text/plain; charset=utf-8", (("Location", "/docs"),))
