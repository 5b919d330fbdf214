"""Plays scripts of commands through a domain, with time that passes and timers that run.

    rehearsal = Rehearsal(DOMAIN)
    rehearsal.play(command("counter.add", {"delta": 5}, key="a"))

A script is data: the same script can be played in this process, in another one, through a
sandbox, from a dump taken half-way, and the outcomes compared.
"""

import hashlib
import importlib
from typing import Any, Final, cast

import msgspec

from ultraengine.execution.pipeline import Hooks, Verdict
from ultraengine.execution.system import Tick, system_command
from ultraengine.model.domain import Domain
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant
from ultraengine.testing.memory import Bench

TIMERS_PER_TICK_MAX: Final = 3
"""Small, so that scripts meet the bound."""


class ScriptCommand(msgspec.Struct, frozen=True):
    """One line of a script."""

    type: str
    data: Any
    """As in JSON."""
    key: str = "k"
    tenant: str = "t"
    wait_us: int = 1
    """Time that passes before it, in microseconds, at least 1."""


def command(type: str, data: object, *, key: str = "k", tenant: str = "t") -> ScriptCommand:
    """A line of a script, for strategies: ``st.builds(command, …)``."""
    return ScriptCommand(type, data, key, tenant)


def load_domain(reference: str) -> Domain:
    """The domain named ``package.module:ATTRIBUTE``.

    Raises ImportError or AttributeError with the name that is not there.
    """
    module, _, attribute = reference.partition(":")
    return cast("Domain", getattr(importlib.import_module(module), attribute))


class Rehearsal(Bench):
    """A bench on which time passes: due timers tick before each command, as on a shard."""

    def __init__(self, *domains: Domain, hooks: Hooks | None = None) -> None:
        super().__init__(*domains, hooks=hooks)
        self.now = self.time
        """Time of the script; ``time`` is the stamped time of the last command."""

    def play(self, line: ScriptCommand) -> Verdict | EngineError:
        """Let time pass, then run one command; the error when it is refused before the log."""
        self.wait(line)
        return self.act(line)

    def wait(self, line: ScriptCommand) -> None:
        """The first half of ``play``: the time before the line passes, timers tick."""
        self.now = Instant(self.now + max(1, line.wait_us))
        self.pass_time(self.now)

    def act(self, line: ScriptCommand) -> Verdict | EngineError:
        """The second half of ``play``: the command itself."""
        self.time = Instant(min(self.time, self.now - 1))
        try:
            return self.run(line.type, line.data, key=line.key, tenant=line.tenant, at=self.now)
        except EngineError as error:
            return error

    def pass_time(self, now: int) -> None:
        """Tick, as often as it takes, until no timer is due at `now` (as `Instant`)."""
        while True:
            due = self.executor.next_due()
            if due is None or due[0] > now:
                return
            self.time = Instant(max(self.time, due[0]))
            offset = self.executor.applied_end
            ticking = system_command(Tick(due[1], TIMERS_PER_TICK_MAX), offset=offset)
            verdict = self.executor.execute(
                self.registry.restore(ticking), offset=offset, time=self.time, epoch=self.epoch
            )
            self.log.append((ticking, verdict.outcome, self.time))

    def restored(self, *domains: Domain) -> "Rehearsal":
        """A second rehearsal that was loaded from this one's dump and goes on from there."""
        other = type(self)(*(domains or self.registry.domains))
        for slot, image in self.executor.slots.items():
            for chunk in image.dump_versions(full=True):
                other.executor.slot(slot).load_versions(chunk)
            for index, domain in enumerate(self.registry.domains):
                if image.states[index] is not None:
                    for chunk in list(domain.dump(image.states[index])):
                        state = other.executor.state(slot, index)
                        domain.load(state, chunk, domain.schema)
        other.history.payloads.update(self.history.payloads)
        other.executor.applied_end = self.executor.applied_end
        other.executor.time = self.executor.time
        other.time, other.now, other.epoch = self.time, self.now, self.epoch
        other.executor.reschedule()
        return other

    def replayed(self) -> "Rehearsal":
        """A second rehearsal that evolved this one's recorded outcomes."""
        other = type(self)(*self.registry.domains)
        for logged, outcome, time in self.log:
            other.executor.replay(logged, outcome, time=time, epoch=self.epoch)
            other.log.append((logged, outcome, time))
        other.time, other.now, other.epoch = self.time, self.now, self.epoch
        return other

    def regrouped(self, domain: Domain, size: int) -> "Rehearsal":
        """A second rehearsal of `domain` that evolved the same outcomes in groups of `size`, each
        stamped as its last command was."""
        other = type(self)(domain)
        for start in range(0, len(self.log), size):
            group = self.log[start : start + size]
            other.executor.replay_group(
                [logged for logged, _, _ in group],
                [outcome for _, outcome, _ in group],
                time=group[-1][2],
                epoch=self.epoch,
            )
        return other

    def dump(self) -> dict[tuple[int, str], list[bytes]]:
        """What a snapshot would hold: whether a slot was only looked at does not show."""
        return {place: chunks for place, chunks in super().dump().items() if chunks}

    def digest(self) -> str:
        """Digest of ``dump``."""
        digest = hashlib.blake2b(digest_size=16)
        for (slot, part), chunks in self.dump().items():
            digest.update(f"{slot} {part} {len(chunks)} ".encode())
            for chunk in chunks:
                digest.update(len(chunk).to_bytes(4, "little") + chunk)
        return digest.hexdigest()
