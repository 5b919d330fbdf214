"""Where blobs are: ``s3://bucket/prefix?option=value``.  Pure.

Options, all of them optional; what is not given comes from the environment and the files that
every S3 client reads (``AWS_ENDPOINT_URL_S3``, ``AWS_REGION``, ``AWS_SHARED_CREDENTIALS_FILE``, …):

    endpoint   http(s)://host:port of a server that is not AWS
    region     its region
    sse        AES256 or aws:kms: the server encrypts what it stores
    kms_key    key of aws:kms
    profile    section of the credentials file

Credentials are never part of it: a location is logged and stands in settings.
"""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

SCHEME: Final = "s3://"
_SSE: Final = ("AES256", "aws:kms")


class S3Location(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket, and what to put before each name."""

    bucket: str
    prefix: str = ""
    """Empty, or with a slash at its end."""
    endpoint: str | None = None
    region: str | None = None
    sse: str | None = None
    kms_key: str | None = None
    profile: str | None = None

    @classmethod
    def parse(cls, text: str) -> "S3Location":
        """Raises ValueError with what is wrong."""
        parts = urlsplit(text)
        if parts.scheme != "s3" or not parts.netloc:
            raise ValueError(f"{text!r} is not s3://bucket/prefix")
        if "@" in parts.netloc:
            raise ValueError("s3://…: credentials come from the environment or files, never a URL")
        prefix = parts.path.strip("/")
        if any(not part or part in {".", ".."} for part in prefix.split("/")) and prefix:
            raise ValueError(f"{text!r}: a part of the prefix is empty or has only dots")
        options: dict[str, str] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in cls.__struct_fields__[2:]:
                raise ValueError(f"{text!r}: there is no option {name!r}")
            options[name] = value
        if options.get("sse", _SSE[0]) not in _SSE:
            raise ValueError(f"{text!r}: sse is AES256 or aws:kms")
        if "kms_key" in options and options.get("sse") != "aws:kms":
            raise ValueError(f"{text!r}: kms_key goes with sse=aws:kms")
        endpoint = options.get("endpoint", "http://")
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"{text!r}: endpoint is http://host:port or https://host:port")
        return cls(bucket=parts.netloc, prefix=f"{prefix}/" if prefix else "", **options)
