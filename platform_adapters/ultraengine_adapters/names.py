"""Names of blobs, the same for every store, so that what one takes another can hold.  Pure."""


def check_blob_name(name: str) -> None:
    """Raises ValueError for an empty part, one that starts with '.', and NUL."""
    if "\0" in name or any(not part or part.startswith(".") for part in name.split("/")):
        raise ValueError(f"{name!r} is not a name of a blob: no part is empty or starts with '.'")
