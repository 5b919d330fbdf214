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


def decode_record(raw: bytes, *, replicas: int = 0) -> Record:
    """Inverse of `encode_record`.  `replicas`: what is meant by a record that does not say how many
    copies there are.  Raises `InvariantBroken` for what no replica has written."""
    try:
        record = _DECODER.decode(raw)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvariantBroken("the record is not one", why=str(error)) from None
    if record.replicas == 0:
        record = msgspec.structs.replace(record, replicas=replicas)
    check(record)
    return record
