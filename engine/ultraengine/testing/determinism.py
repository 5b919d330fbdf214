"""Holds a domain to one answer: in other processes, in a replay, after a restart.

    check_determinism("shop.domain:DOMAIN", [[command("shop.sell", {...}), ...], ...])

plays each script in two processes whose hashes of strings differ, and in each of them once
more from the recorded outcomes and from a dump taken half-way.  `AssertionError` names the
first command that came out differently, with both outcomes.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ultraengine.model.errors import EngineError
from ultraengine.testing.rehearsal import Rehearsal, ScriptCommand, load_domain
from ultraengine.testing.subprocesses import HASH_SEEDS, run_under_seeds

Script = Sequence[ScriptCommand]
_ENCODER: Final = msgspec.msgpack.Encoder()
_SCRIPTS: Final = msgspec.msgpack.Decoder(list[list[ScriptCommand]])


class Trace(msgspec.Struct, frozen=True):
    """What one script came to in one process."""

    outcomes: list[str]
    """One per command, as text: recorded outcome or refusal."""
    digests: list[str]
    """Digest of the state after each command."""
    replayed: str
    """Digest of the state that the recorded outcomes evolve to."""
    restored: list[str]
    """Outcomes of the second half, played from a dump of the first."""
    restored_digest: str
    """Digest of the state after that."""


_TRACES: Final = msgspec.msgpack.Decoder(list[Trace])


def check_determinism(reference: str, scripts: Sequence[Script]) -> None:
    """Raises AssertionError with the first difference."""
    outputs = run_under_seeds(
        "ultraengine.testing.probe", ("domain", reference), _ENCODER.encode(scripts)
    )
    one, other = (_TRACES.decode(output) for output in outputs)
    for script, first, second in zip(scripts, one, other, strict=True):
        seeds = tuple(f"under hash seed {seed}" for seed in HASH_SEEDS)
        _compare(script, first.outcomes, second.outcomes, seeds, "outcome")
        _compare(script, first.digests, second.digests, seeds, "state")
        check_trace(script, first)


def check_trace(script: Script, trace: Trace) -> None:
    """Compare a run with its own replay and with its restart from a dump.

    Raises AssertionError.
    """
    if trace.digests and trace.replayed != trace.digests[-1]:
        raise AssertionError(
            "evolving the recorded events reaches another state than deciding did: evolve "
            f"depends on more than state, event and place\nscript: {_listed(script)}"
        )
    half = len(script) // 2
    ways = ("in one go", "from a dump")
    _compare(script[half:], trace.outcomes[half:], trace.restored, ways, "outcome")
    if trace.digests and trace.restored_digest != trace.digests[-1]:
        raise AssertionError(
            "the state after a restart from a dump differs: something is missing in the dump\n"
            f"script, dumped after line {half}: {_listed(script)}"
        )


def trace(reference: str, scripts: bytes) -> bytes:
    """The other side of `check_determinism`: play encoded scripts, give encoded traces."""
    return _ENCODER.encode(
        [trace_script(load_domain(reference), script) for script in _SCRIPTS.decode(scripts)]
    )


def trace_script(domain: Any, script: Script) -> Trace:
    """Play one script in this process."""
    rehearsal = Rehearsal(domain)
    half = len(script) // 2
    restored = rehearsal
    outcomes: list[str] = []
    digests: list[str] = []
    for number, line in enumerate(script):
        if number == half:
            restored = rehearsal.restored()
        outcomes.append(describe(rehearsal, line))
        digests.append(rehearsal.digest())
    late = [describe(restored, line) for line in script[half:]]
    return Trace(outcomes, digests, rehearsal.replayed().digest(), late, restored.digest())


def describe(rehearsal: Rehearsal, line: ScriptCommand) -> str:
    """Play one line and say as text what was recorded, ticks before it included."""
    start = len(rehearsal.log)
    answer = rehearsal.play(line)
    recorded = [_readable(outcome) for _, outcome, _ in rehearsal.log[start:]]
    if isinstance(answer, EngineError):
        recorded.append(f"refused: {answer.code} {answer.pointer} {answer.detail}")
    return "; ".join(recorded)


def _readable(outcome: Any) -> str:
    fields = {
        "offset": outcome.offset,
        "status": outcome.status,
        "version": outcome.version,
        "result": msgspec.msgpack.decode(outcome.result),
        "events": msgspec.msgpack.decode(outcome.events),
        "failure": outcome.failure,
        "messages": msgspec.msgpack.decode(outcome.messages),
    }
    return msgspec.json.encode(fields).decode()


def _compare(
    script: Script, one: Sequence[str], other: Sequence[str], ways: Sequence[str], what: str
) -> None:
    for number, line in enumerate(script):
        if one[number] != other[number]:
            raise AssertionError(
                f"the {what} of command {number} depends on more than state, data and context\n"
                f"command: {line}\n{ways[0]}: {one[number]}\n{ways[1]}: {other[number]}\n"
                f"script: {_listed(script)}"
            )


def _listed(script: Script) -> str:
    return "".join(f"\n  {number}: {line}" for number, line in enumerate(script))
