"""A `MemoryCluster` behind HTTP, as far as `drivers/kubernetes.py` speaks it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from tests.unit.operator.memory import MemoryCluster

from ultraengine_operator.cluster import KINDS, Kind, Refused

PAGE = 2


def _kind(plural: str) -> Kind:
    return next(kind for kind in KINDS.values() if kind.plural == plural)


class Api:
    """Answers as an API server does; a list has pages of two."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.cluster = cluster

    async def answer(self, request: web.Request) -> web.Response:
        parts = request.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = parts[1] if parts[0] == "namespaces" else ""
        rest = parts[2:] if namespace else parts
        try:
            return await self._answer(request, _kind(rest[0]), namespace, rest[1:])
        except Refused as refused:
            body = {"kind": "Status", "message": refused.message}
            return web.json_response(body, status=refused.status)

    async def _answer(
        self, request: web.Request, kind: Kind, namespace: str, rest: list[str]
    ) -> web.Response:
        query = request.query
        body = await request.json() if request.can_read_body else {}
        match request.method:
            case "GET" if not rest:
                found = await self.cluster.list(kind, query.get("labelSelector", ""))
                start = int(query.get("continue", "0"))
                more = {"continue": str(start + PAGE)} if start + PAGE < len(found) else {}
                items = [
                    {key: one[key] for key in one if key not in ("kind", "apiVersion")}
                    for one in found[start : start + PAGE]
                ]
                for item in items:
                    item["metadata"]["managedFields"] = [{"manager": "a person"}]
                return web.json_response({"metadata": more, "items": items})
            case "GET":
                one = await self.cluster.get(kind, namespace, rest[0])
                if one is None:
                    raise Refused(404, "not found")
                return web.json_response(one)
            case "POST":
                return web.json_response(await self.cluster.create(kind, body), status=201)
            case "PUT":
                return web.json_response(await self.cluster.replace(kind, body))
            case "PATCH" if request.content_type == "application/apply-patch+yaml":
                applied = await self.cluster.apply(
                    kind, body, manager=query["fieldManager"], subresource="/".join(rest[1:])
                )
                return web.json_response(applied)
            case "PATCH":
                return web.json_response(await self.cluster.merge(kind, namespace, rest[0], body))
            case _:
                if await self.cluster.get(kind, namespace, rest[0]) is None:
                    raise Refused(404, "not found")
                uid = body.get("preconditions", {}).get("uid")
                await self.cluster.delete(kind, namespace, rest[0], uid=uid)
                return web.json_response({})


@asynccontextmanager
async def served(cluster: MemoryCluster) -> AsyncIterator[str]:
    """The address of the API."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", Api(cluster).answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
