"""The ObjectStore port on a server that speaks S3: AWS, MinIO, Ceph, SeaweedFS and others.

A blob becomes visible as a whole or not at all, by the protocol.  What is sent carries its
SHA-256, which the server compares; conditional creation is ``If-None-Match: *``, which the
server must know.  Large blobs go in parts.  Attempts, their number and their time are limited
here, by name; what still fails is one of the port's errors, so that nobody reads messages.

Blocks; may be used from threads.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as CannotConnect,
)

from ultraengine.ports import StoreDamaged, StoreDenied, StoreUnavailable
from ultraengine_adapters.names import check_blob_name
from ultraengine_adapters.s3.location import S3Location

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
ATTEMPTS_MAX: Final = 4
"""Of one request, the first one included; with growing pauses between them."""
CONNECTIONS_MAX: Final = 16
PART_BYTES: Final = 16 * 1024 * 1024
"""Of a blob that is sent in parts; S3 takes at most 10,000 of them, so 156 GiB in all."""

_MISSING: Final = frozenset({"NoSuchKey", "NotFound", "404"})
_THERE: Final = frozenset({"PreconditionFailed", "412"})
_RANGE: Final = frozenset({"InvalidRange", "416"})
_DAMAGED: Final = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"})
_DENIED: Final = frozenset(
    {
        "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "Forbidden",
        "InvalidAccessKeyId", "InvalidToken", "NoSuchBucket", "RequestTimeTooSkewed",
        "SignatureDoesNotMatch", "TokenRefreshRequired",
    }
)  # fmt: skip
_NOT_SET_UP: Final = (
    NoCredentialsError, PartialCredentialsError, ProfileNotFound, NoRegionError,
    TokenRetrievalError,
)  # fmt: skip

T = TypeVar("T")


class S3ObjectStore:
    """Blobs of one bucket below one prefix.  No part of a name may start with '.'."""

    def __init__(
        self,
        location: S3Location,
        *,
        attempts_max: int = ATTEMPTS_MAX,
        read_timeout_s: float = READ_TIMEOUT_S,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """Raises `StoreDenied` when there is no region or no such profile.  Connects later."""
        self._location = location
        self._part_bytes = part_bytes
        self._client = self._translated(
            location.prefix, lambda: _client(location, attempts_max, read_timeout_s)
        )
        self._kept: dict[str, str] = {}
        if location.sse is not None:
            self._kept["ServerSideEncryption"] = location.sse
        if location.kms_key is not None:
            self._kept["SSEKMSKeyId"] = location.kms_key

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        """Store durably.

        Raises FileExistsError when `if_absent` and it is there, ValueError for a bad name,
        `StoreDenied`, `StoreUnavailable`, `StoreDamaged`.
        """
        arguments = self._arguments(name) | {"Body": data, "ChecksumSHA256": _sha256(data)}
        if if_absent:
            arguments["IfNoneMatch"] = "*"
        try:
            self._translated(name, lambda: self._client.put_object(**arguments, **self._kept))
        except FileExistsError as error:
            # An attempt whose answer was lost may have put it there itself.
            answer = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {})
            if not answer.get("RetryAttempts") or self.get(name) != data:
                raise

    def put_stream(self, name: str, chunks: Iterable[bytes]) -> None:
        """Store the concatenation of chunks of any length; nothing is there if they raise.

        Raises as ``put`` does.
        """
        parts = _regrouped(chunks, self._part_bytes)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            self.put(name, first)
            return
        arguments = self._arguments(name)
        begun = self._translated(
            name,
            lambda: self._client.create_multipart_upload(
                **arguments, **self._kept, ChecksumAlgorithm="SHA256"
            ),
        )
        upload = arguments | {"UploadId": begun["UploadId"]}
        try:
            done = [self._put_part(name, upload, 1, first), self._put_part(name, upload, 2, second)]
            for number, part in enumerate(parts, 3):
                done.append(self._put_part(name, upload, number, part))
            self._translated(
                name,
                lambda: self._client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": done}
                ),
            )
        except BaseException:
            self._abandon(name, upload)
            raise

    def get(self, name: str) -> bytes:
        """The whole blob.  Raises FileNotFoundError, and as ``put`` does."""
        return self._read(name, {})

    def get_range(self, name: str, position: int, length: int) -> bytes:
        """A part of a blob.  Raises as ``get`` does."""
        if length == 0:
            self.size(name)
            return b""
        return self._read(name, {"Range": f"bytes={position}-{position + length - 1}"})

    def size(self, name: str) -> int:
        """Length in bytes.  Raises as ``get`` does."""
        found = self._translated(
            name, lambda: self._client.head_object(**self._arguments(name, checked=False))
        )
        return int(found["ContentLength"])

    def list(self, prefix: str) -> Sequence[str]:
        """Names that start with `prefix`, sorted by code point."""
        whole = self._location.prefix + prefix
        cut = len(self._location.prefix)

        def pages() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._location.bucket, Prefix=whole
            )
            return [one["Key"][cut:] for page in pages for one in page.get("Contents", ())]

        # A server may show folders of its own.
        return sorted(name for name in self._translated(whole, pages) if not name.endswith("/"))

    def delete(self, name: str) -> None:
        """Remove; no error when it is not there."""
        self._translated(
            name, lambda: self._client.delete_object(**self._arguments(name, checked=False))
        )

    def _read(self, name: str, more: dict[str, str]) -> bytes:
        arguments = self._arguments(name, checked=False) | more

        def read() -> bytes:
            # Its length, and its checksum where the server names one, are compared as it is read.
            return bytes(self._client.get_object(**arguments)["Body"].read())

        try:
            return self._translated(name, read)
        except _BeyondEndError:
            return b""

    def _put_part(
        self, name: str, upload: dict[str, Any], number: int, data: bytes
    ) -> dict[str, Any]:
        checksum = _sha256(data)
        answer = self._translated(
            name,
            lambda: self._client.upload_part(
                **upload, PartNumber=number, Body=data, ChecksumSHA256=checksum
            ),
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _abandon(self, name: str, upload: dict[str, Any]) -> None:
        try:
            self._translated(name, lambda: self._client.abort_multipart_upload(**upload))
        except OSError:
            # What went wrong before is what counts; a rule of the bucket removes the parts.
            return

    def _arguments(self, name: str, *, checked: bool = True) -> dict[str, Any]:
        if checked:
            check_blob_name(name)
        return {"Bucket": self._location.bucket, "Key": self._location.prefix + name}

    def _translated(self, name: str, call: Callable[[], T]) -> T:
        """What `call` returns; its errors become those of the port."""
        where = f"s3://{self._location.bucket}/{self._location.prefix}"
        try:
            return call()
        except ClientError as error:
            raise _named(error, name, where) from error
        except _NOT_SET_UP as error:
            raise StoreDenied(f"{where}: {error}") from error
        except (CannotConnect, HTTPClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"{where}: {name}: {error} (after the last attempt)") from error


class _BeyondEndError(Exception):
    """A range that begins behind the last byte."""


def _client(location: S3Location, attempts_max: int, read_timeout_s: float) -> Any:
    session = boto3.session.Session(
        profile_name=location.profile, region_name=location.region or None
    )
    return session.client(
        "s3",
        endpoint_url=location.endpoint,
        region_name=location.region or session.region_name or "us-east-1",
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            max_pool_connections=CONNECTIONS_MAX,
            retries={"total_max_attempts": attempts_max, "mode": "standard"},
            # Servers that are reached by address have no names for their buckets.
            s3={"addressing_style": "path" if location.endpoint else "auto"},
            request_checksum_calculation="when_required",
        ),
    )


def _named(error: ClientError, name: str, where: str) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _THERE:
        return FileExistsError(name)
    if code in _RANGE:
        return _BeyondEndError()
    if code in _MISSING:
        return FileNotFoundError(name)
    if code in _DAMAGED:
        return StoreDamaged(f"{where}: {name}: the server received other bytes: {error}")
    if code in _DENIED or status in {401, 403}:
        return StoreDenied(f"{where}: {name}: {error}")
    return StoreUnavailable(f"{where}: {name}: {error}")


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _regrouped(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of exactly `size`, the last one shorter."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)
