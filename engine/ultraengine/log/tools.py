"""What people do with a log by hand: verify, dump, diff, repair, truncate.

The functions behind ``ultra log …``: they use the Disk port, return typed values, print
nothing, and change nothing before a copy is in ``broken/``.  `verify`, `dump` and `diff` may
look at the log of a running process: they then see a moment of it.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ultraengine.log.first import FIRST_PATH
from ultraengine.log.frame import Frame, FrameKind
from ultraengine.log.identity import IDENTITY_PATH, IdentityDamaged, LogIdentity, decode_identity
from ultraengine.log.mending import RepairReport, TruncateReport, foresee, repair, truncate
from ultraengine.log.recovery import Verdict
from ultraengine.log.segment import KeyRing
from ultraengine.log.serializer import serializers
from ultraengine.log.survey import Finding, read_all, survey_beside, walk
from ultraengine.model.policy import LogSerializer
from ultraengine.ports import Disk, Secrets

__all__ = [
    "Difference",
    "Problem",
    "RepairReport",
    "SegmentReport",
    "TruncateReport",
    "VerifyReport",
    "diff",
    "dump",
    "foresee",
    "repair",
    "truncate",
    "verify",
]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, exactly."""

    file: str
    byte_position: int
    sequence: int
    offset: int
    reason: str
    message: str
    """The whole sentence with advice, as the start of a process would say it."""


class SegmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """One segment, as far as it is good."""

    path: str
    file_bytes: int
    used_bytes: int
    first_sequence: int
    end_sequence: int
    first_offset: int
    end_offset: int
    created: int
    """Microseconds since the Unix epoch."""
    encrypted: bool
    keyed: bool
    verdict: str
    """``continue``, ``end``, ``torn`` or ``damage``."""


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found.  `ok` means that a process would start from it."""

    ok: bool
    identity: LogIdentity | None
    segments: tuple[SegmentReport, ...]
    problems: tuple[Problem, ...]
    end_sequence: int
    """Behind the last good frame of the last segment that could be read."""
    end_offset: int
    recorded_end: int
    """Every lower offset has its outcome."""
    chain: str
    """At the end, in hexadecimal digits; equal chains mean equal history."""
    state_chain: str
    proved_end: int
    mark_end: int | None
    """Durable end of MARK; None without a readable one."""
    torn_bytes: int
    """Bytes behind the end, which the next start would move to ``broken/``."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where two logs of one shard part."""

    sequence: int
    offset: int | None
    """Base offset of the frame; None where one log has no frame."""
    field: str
    """Name of the first header field that differs, ``payload`` or ``end``."""
    a: str
    b: str


def verify(disk: Disk, secrets: Secrets, *, from_sequence: int = 0) -> VerifyReport:
    """Check every byte that counts, from the segment of a frame on.

    Raises `LogRefused` when a key is missing or the format is newer.
    """
    identity, problems = _identity(disk)
    uid = None if identity is None else identity.cluster_uid
    found = survey_beside(disk, KeyRing(secrets), verify_from=from_sequence, cluster_uid=uid)
    damages = [one.damage for one in found.findings if one.damage is not None]
    if found.damage is not None and found.damage not in damages:
        damages.insert(0, found.damage)
    problems += [
        Problem(
            file=damage.file,
            byte_position=damage.byte_position,
            sequence=damage.sequence,
            offset=damage.offset,
            reason=damage.reason,
            message=str(damage),
        )
        for damage in damages
    ]
    if found.first_problem:
        problems.append(
            Problem(
                file=FIRST_PATH,
                byte_position=0,
                sequence=0,
                offset=0,
                reason=found.first_problem,
                message=f"{FIRST_PATH}: {found.first_problem}. The next start writes it anew.",
            )
        )
    scans = [one.scan for one in found.findings if one.scan is not None]
    end = scans[-1].end.point if scans else None
    torn = [one for one in found.findings if one.verdict is Verdict.TORN and one.scan is not None]
    return VerifyReport(
        ok=not problems,
        identity=identity,
        segments=tuple(report for one in found.findings for report in _segment(one)),
        problems=tuple(problems),
        end_sequence=0 if end is None else end.sequence,
        end_offset=0 if end is None else end.offset,
        recorded_end=0 if end is None else end.recorded_end,
        chain="" if end is None else end.chain.hex(),
        state_chain="" if end is None else end.state_chain.hex(),
        proved_end=found.proved_end,
        mark_end=None if found.mark is None else found.mark.durable_end,
        torn_bytes=sum(
            one.used_end - one.scan.end.byte_position for one in torn if one.scan is not None
        ),
    )


def dump(
    disk: Disk,
    secrets: Secrets,
    *,
    from_sequence: int = 0,
    to_sequence: int | None = None,
    payloads: bool = True,
    codecs: Sequence[LogSerializer] = (),
) -> Iterator[dict[str, Any]]:
    """Good frames as values that JSON can hold, in order; with `payloads` also their content.

    Ends where the log stops being good: run `verify` to hear why.  Raises `LogRefused`.
    """
    table = serializers(codecs)
    for path, position, frame, _ in walk(disk, KeyRing(secrets), from_sequence, to_sequence):
        shown = _header(frame) | {"file": path, "byte_position": position}
        if payloads:
            shown |= _content(frame, table)
        yield shown


def diff(a: Disk, b: Disk, secrets_a: Secrets, secrets_b: Secrets) -> Difference | None:
    """The first frame in which the good parts of two logs differ; None when there is none.

    Compares the history, not how it is stored, from the higher of the two starts on.  The
    chain key must be the same.
    """
    ours = walk(a, KeyRing(secrets_a))
    theirs = walk(b, KeyRing(secrets_b))
    left, right = next(ours, None), next(theirs, None)
    while left is not None and right is not None:
        here, there = left[2].header.sequence, right[2].header.sequence
        if here < there:
            left = next(ours, None)
        elif there < here:
            right = next(theirs, None)
        else:
            found = _compare(left[2], right[2])
            if found is not None:
                return found
            left, right = next(ours, None), next(theirs, None)
    last = left if left is not None else right
    if last is None:
        return None
    return Difference(
        sequence=last[2].header.sequence,
        offset=last[2].header.base_offset,
        field="end",
        a="the log ends" if left is None else "a frame",
        b="the log ends" if right is None else "a frame",
    )


def _identity(disk: Disk) -> tuple[LogIdentity | None, list[Problem]]:
    reason = "it is missing"
    try:
        return decode_identity(read_all(disk, IDENTITY_PATH)), []
    except FileNotFoundError:
        pass
    except IdentityDamaged as error:
        reason = str(error)
    message = f"{IDENTITY_PATH}: {reason}. Restore it from a backup of this directory."
    problem = Problem(
        file=IDENTITY_PATH, byte_position=0, sequence=0, offset=0, reason=reason, message=message
    )
    return None, [problem]


def _segment(found: Finding) -> Iterator[SegmentReport]:
    header, scan = found.header, found.scan
    if header is None or scan is None or found.verdict is None:
        return
    yield SegmentReport(
        path=found.path,
        file_bytes=found.file_bytes,
        used_bytes=scan.end.byte_position,
        first_sequence=found.first_sequence,
        end_sequence=scan.end.point.sequence,
        first_offset=header.point.offset,
        end_offset=scan.end.point.offset,
        created=header.created,
        encrypted=bool(header.master_key),
        keyed=bool(header.chain_key),
        verdict=found.verdict.name.lower(),
    )


def _header(frame: Frame) -> dict[str, Any]:
    header = frame.header
    return {
        "sequence": header.sequence,
        "kind": FrameKind(header.kind).name,
        "base_offset": header.base_offset,
        "count": header.count,
        "shard": header.shard,
        "epoch": header.epoch,
        "config_version": header.config_version,
        "time": header.time,
        "codec": header.codec,
        "flags": header.flags,
        "handlers": header.handlers.hex(),
        "durable_end": header.durable_end,
        "chain": header.chain.hex(),
        "stored_bytes": header.stored_bytes,
        "payload_bytes": header.payload_bytes,
    }


def _content(frame: Frame, table: Mapping[int, LogSerializer]) -> dict[str, Any]:
    """The decoded payload, or its bytes in base64 when its codec is not known here."""
    serializer = table.get(frame.header.codec)
    try:
        if serializer is None:
            raise ValueError(f"no serializer for codec {frame.header.codec}")
        if frame.header.kind == FrameKind.COMMANDS:
            return {"commands": [_plain(one) for one in serializer.decode_commands(frame.payload)]}
        return {"outcomes": [_plain(one) for one in serializer.decode_outcomes(frame.payload)]}
    except ValueError as error:
        return {"payload": base64.b64encode(frame.payload).decode(), "payload_error": str(error)}


def _plain(record: msgspec.Struct) -> dict[str, Any]:
    """A record by field name, with embedded msgpack decoded and bytes in base64."""
    shown = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, msgspec.Raw):
            value = msgspec.msgpack.decode(value)
        shown[name] = msgspec.to_builtins(value, str_keys=True)
    return shown


_COMPARED = (
    "kind",
    "base_offset",
    "count",
    "shard",
    "epoch",
    "config_version",
    "time",
    "codec",
    "handlers",
    "payload_bytes",
    "chain",
)


def _compare(a: Frame, b: Frame) -> Difference | None:
    here, there = _header(a), _header(b)
    for name in _COMPARED:
        if here[name] != there[name]:
            return _difference(a, name, str(here[name]), str(there[name]))
    if a.payload == b.payload:
        return None
    at = next(
        number for number, (x, y) in enumerate(zip(a.payload, b.payload, strict=True)) if x != y
    )
    here_shown, there_shown = (p[at : at + 16].hex() for p in (a.payload, b.payload))
    return _difference(a, "payload", f"byte {at}: {here_shown}", f"byte {at}: {there_shown}")


def _difference(frame: Frame, field: str, a: str, b: str) -> Difference:
    header = frame.header
    return Difference(sequence=header.sequence, offset=header.base_offset, field=field, a=a, b=b)
