"""The record as bytes: what a `ports.RecordStore` keeps, and what a swap has come to.

JSON, so that a person can read it where it lies.  Equal records are equal bytes.
"""

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.replication.record import Record, check

_DECODER = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """The bytes to keep."""
    return msgspec.json.encode(record)


def decode_record(raw: bytes) -> Record:
    """Inverse of `encode_record`.  Raises `InvariantBroken` for what no replica has written."""
    try:
        record = _DECODER.decode(raw)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvariantBroken("the record is not one", why=str(error)) from None
    check(record)
    return record
