"""`Cluster` on a real API server, through the official asynchronous client.

Objects go in and out as plain mappings: the client's typed models would cost memory and drop
fields of newer servers. Its part here is credentials, TLS, proxies and connections.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio import client, config

from ultraengine_operator.cluster import Content, Kind, Refused

REQUEST_S: Final = 30.0
PAGE: Final = 500
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"


async def connect(context: str | None = None) -> client.ApiClient:
    """A client with the pod's own identity, or the kubeconfig's outside of a cluster."""
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(context=context)  # type: ignore[no-untyped-call]
    return client.ApiClient()


class KubernetesCluster:
    """`cluster.Cluster` on an API server. `namespaces` empty means all."""

    def __init__(self, api: client.ApiClient, namespaces: Sequence[str] = ()) -> None:
        self._api = api
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)

    async def list(self, kind: Kind, selector: str) -> Sequence[Content]:
        """Objects of all watched namespaces with these labels."""
        found: list[Content] = []
        for namespace in self._namespaces:
            following = ""
            while True:
                query = {"limit": str(PAGE), "labelSelector": selector, "continue": following}
                page = await self._ask("GET", kind.path(namespace), query=query)
                # Items of a list leave out what the list says once.
                for one in page["items"]:
                    # Much of each object, and read by nobody; thousands are held here at once.
                    one["metadata"].pop("managedFields", None)
                    found.append({**one, "apiVersion": kind.api_version, "kind": kind.name})
                following = page["metadata"].get("continue", "")
                if not following:
                    break
        return found

    async def get(self, kind: Kind, namespace: str, name: str) -> Content | None:
        """One object; None when there is none."""
        try:
            return await self._ask("GET", kind.path(namespace, name))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def create(self, kind: Kind, content: Content) -> Content:
        """Make an object.  Refused 409 when there is one."""
        return await self._ask("POST", kind.path(content["metadata"]["namespace"]), content)

    async def replace(self, kind: Kind, content: Content) -> Content:
        """Replace an object of exactly this resourceVersion.  Refused 409 otherwise."""
        return await self._ask("PUT", self._path(kind, content), content)

    async def apply(
        self, kind: Kind, content: Content, *, manager: str, subresource: str = ""
    ) -> Content:
        """Server-side apply, not forced.  Refused 409 when another manager owns a field."""
        path = self._path(kind, content) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": manager}
        return await self._ask("PATCH", path, content, query=query, media_type=_APPLY)

    async def merge(
        self, kind: Kind, namespace: str, name: str, content: Mapping[str, Any]
    ) -> Content:
        """Merge patch."""
        path = kind.path(namespace, name)
        return await self._ask("PATCH", path, dict(content), media_type=_MERGE)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str | None) -> None:
        """Delete, in the background; only the object of this uid, if given.  Gone is fine."""
        options: Content = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._ask("DELETE", kind.path(namespace, name), options)
        except Refused as refused:
            # 409: the object of this uid is gone, and another has its name.
            if refused.status not in ((404,) if uid is None else (404, 409)):
                raise

    @staticmethod
    def _path(kind: Kind, content: Content) -> str:
        return kind.path(content["metadata"]["namespace"], content["metadata"]["name"])

    async def _ask(
        self,
        method: str,
        path: str,
        body: Content | None = None,
        *,
        query: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> Content:
        headers = {"Accept": "application/json", "Content-Type": media_type}
        query = {key: value for key, value in (query or {}).items() if value}
        settings = self._api.configuration
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{settings.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                    method, url, headers=headers, body=body, _request_timeout=REQUEST_S
                )
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Refused(0, f"{type(error).__name__}: {error}") from error
        except client.ApiException as error:
            raise Refused(error.status or 0, str(error.body or error.reason)) from error
        if answer.status >= 300:
            raise Refused(answer.status, _message(content))
        found: Content = msgspec.json.decode(content)
        return found


def _message(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return content[:500].decode(errors="replace")
