"""The RecordStore port on a Lease: an annotation, changed by PUT with uid and resourceVersion.

Never apply, patch or a PUT without both: these would land on another Lease of the same name, or on
content that was not read.  The Lease itself is somebody else's to make (the operator's): a pod
that may create one could make the second of two.  `spec.holderIdentity` and
`spec.leaseTransitions` repeat the record for people who look with kubectl; nothing reads them.
"""

import errno
import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ultraengine.ports import OutcomeUnknown

ANNOTATION: Final = "ultraengine.io/record"
MARK: Final = "ultraengine.io/cluster"
TIMEOUT_S: Final = 5.0
"""Longest wait for a connection, and then for an answer."""
CONFLICTS_MAX: Final = 4
"""PUTs refused because somebody else wrote the Lease and left the record as it was."""
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_JSON: Final = "application/json"


class ApiServer(msgspec.Struct, frozen=True, kw_only=True):
    """How an API server is reached."""

    host: str
    port: int
    tls: ssl.SSLContext
    token: Callable[[], str] | None = None
    """The bearer token of now; None where the certificate of `tls` says who asks."""

    @classmethod
    def of_pod(cls, environ: Mapping[str, str], account: Path = ACCOUNT) -> "ApiServer":
        """The one that a pod is told of, with its service account; the token is read each time,
        because the kubelet renews it.  Raises OSError, KeyError, ValueError, `ssl.SSLError`."""
        return cls(
            host=environ["KUBERNETES_SERVICE_HOST"],
            port=int(environ["KUBERNETES_SERVICE_PORT"]),
            tls=ssl.create_default_context(cafile=str(account / "ca.crt")),
            token=lambda: (account / "token").read_text().strip(),
        )


def pod_namespace(account: Path = ACCOUNT) -> str:
    """The namespace of this pod.  Raises OSError."""
    return (account / "namespace").read_text().strip()


class LeaseRecordStore:
    """The value is the annotation ``ultraengine.io/record``; a Lease without it has no value.
    The mark is ``ultraengine.io/cluster``."""

    def __init__(self, api: ApiServer, namespace: str, name: str) -> None:
        self._api = api
        self._name = name
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"

    def read(self) -> bytes | None:
        """What is in force: a read without resourceVersion asks a quorum of etcd.  Raises OSError.

        A Lease that is not there has no value either: who has sworn anything takes that for a
        record that has gone back.
        """
        lease = self._lease()
        return None if lease is None else _value(lease, ANNOTATION)

    def swap(self, expected: bytes | None, new: bytes) -> bool:
        """Put `new` in the place of exactly `expected`; whether it was done.

        Raises `OutcomeUnknown` when a PUT was sent and no answer tells what became of it; any
        other OSError says that nothing was done.
        """
        return self._swap(ANNOTATION, expected, new)[0]

    def mark(self, first: bytes | None) -> bytes | None:
        """Whose place this is; `first` where nothing says it.  Raises OSError."""
        if first is not None:
            return self._swap(MARK, None, first)[1]
        lease = self._lease()
        return None if lease is None else _value(lease, MARK)

    def _swap(self, name: str, expected: bytes | None, new: bytes) -> tuple[bool, bytes | None]:
        """Put `new` in the place of `expected` in one annotation: whether it was done, and what is
        there now."""
        for _ in range(CONFLICTS_MAX):
            lease = self._lease()
            if lease is None:
                raise FileNotFoundError(errno.ENOENT, "there is no such Lease", self._name)
            found = _value(lease, name)
            if found != expected:
                return False, found
            if self._put(_changed(lease, name, new)):
                return True, new
            # Refused, so it will never land. Whoever wrote the Lease may have left the annotation
            # alone, as those do who label it: only what is there now decides.
        raise BlockingIOError(errno.EAGAIN, "the Lease is written all the time", self._name)

    def _lease(self) -> dict[str, Any] | None:
        status, body = self._ask("GET", None)
        if status == 404:
            return None
        if status != 200:
            raise OSError(errno.EIO, f"the API server answers {status} to a read: {body[:200]!r}")
        found: dict[str, Any] = json.loads(body)
        return found

    def _put(self, lease: dict[str, Any]) -> bool:
        """Whether it was taken; False: it was refused because it is another one's by now."""
        try:
            status, body = self._ask("PUT", lease)
        except _NotSent as error:
            raise OSError(errno.EIO, f"the API server cannot be reached: {error}") from error
        except OSError as error:
            raise OutcomeUnknown(errno.EIO, f"a swap has no answer: {error}") from error
        if status == 200:
            return True
        if status in {404, 409}:
            return False
        if 400 <= status < 500 and status not in {408, 429}:
            raise OSError(errno.EACCES, f"the API server refuses a swap: {status} {body[:200]!r}")
        raise OutcomeUnknown(errno.EIO, f"the API server answers {status} to a swap")

    def _ask(self, method: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """One request on a connection of its own.  Raises OSError; `_NotSent` before anything of
        it has left."""
        api = self._api
        headers = {"Accept": _JSON, "Content-Type": _JSON}
        connection = http.client.HTTPSConnection(
            api.host, api.port, context=api.tls, timeout=TIMEOUT_S
        )
        try:
            try:
                if api.token is not None:
                    headers["Authorization"] = f"Bearer {api.token()}"
                connection.connect()
            except OSError as error:
                raise _NotSent(errno.EIO, str(error)) from error
            content = None if body is None else json.dumps(body)
            connection.request(method, self._path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()


class _NotSent(OSError):
    """Nobody has seen anything of the request."""


def _value(lease: Mapping[str, Any], name: str) -> bytes | None:
    text = lease["metadata"].get("annotations", {}).get(name)
    return None if text is None else str(text).encode()


def _changed(lease: dict[str, Any], name: str, new: bytes) -> dict[str, Any]:
    """The Lease as it was read, uid and resourceVersion with it, and one annotation in it."""
    metadata = lease["metadata"]
    annotations = {**metadata.get("annotations", {}), name: new.decode()}
    told = _for_people(new) if name == ANNOTATION else {}
    return {
        **lease,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**lease.get("spec", {}), **told},
    }


def _for_people(new: bytes) -> dict[str, Any]:
    try:
        record = json.loads(new)
        return {
            "holderIdentity": f"replica-{record['holder']['seat']['replica']}",
            "leaseTransitions": int(record["epoch"]),
        }
    except (ValueError, KeyError, TypeError):
        return {}
