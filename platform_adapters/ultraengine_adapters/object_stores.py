"""The ObjectStore that a setting names: ``s3://…``, or a directory."""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ultraengine.ports import ObjectStore, StoreDenied
from ultraengine_adapters.local.object_store import DirectoryObjectStore
from ultraengine_adapters.s3.location import SCHEME, S3Location

FILE_SCHEME = "file://"


def check_location(location: str) -> None:
    """Raises ValueError with what is wrong with a location; touches nothing."""
    if location.startswith(SCHEME):
        S3Location.parse(location)
    elif "://" in location and not location.startswith(FILE_SCHEME):
        raise ValueError(f"{location!r} is neither s3://bucket/prefix nor a directory")
    elif not location.removeprefix(FILE_SCHEME):
        raise ValueError("is empty")


def open_store(location: str, *, changes: bool = True) -> ObjectStore:
    """Without `changes` nothing is made or removed at the opening.

    Raises ValueError, OSError, `StoreDenied` where the extra ``s3`` is not installed.
    """
    check_location(location)
    if not location.startswith(SCHEME):
        return DirectoryObjectStore(Path(location.removeprefix(FILE_SCHEME)), changes=changes)
    try:
        from ultraengine_adapters.s3.object_store import S3ObjectStore  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        raise StoreDenied(f"{location}: install the extra 's3' ({error})") from error
    return S3ObjectStore(S3Location.parse(location))


def below(location: str, name: str) -> str:
    """The location of a folder in another one."""
    if not location.startswith(SCHEME):
        return str(Path(location) / name)
    parts = urlsplit(location)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
