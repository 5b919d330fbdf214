"""A domain that asks for commands of other keys: `ultra dev --domain` takes it by name, too."""

import msgspec

from ultraengine.execution.layouts import HashLayout, LayoutDomain
from ultraengine.model.domain import Accepted, At, CommandSpec, Context

Key = tuple[str, str]
State = HashLayout[Key, int]


class Pass(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be sent: so many additions to each of these counters."""

    to: list[str]
    times: int = 1
    type: str = "counter.add"


class Passed(msgspec.Struct, array_like=True, tag="passed"):
    """How often this key has passed something on."""

    count: int


def pass_on(state: State, data: Pass, context: Context) -> Accepted:
    """Ask for the commands; each has an id of its own."""
    for key in data.to:
        for number in range(data.times):
            context.send(
                tenant=context.tenant,
                key=key,
                type=data.type,
                id=f"{context.key}-{context.new_id()}-{number}",
                data={"delta": number + 1},
            )
    return Accepted([Passed((state.get((context.tenant, context.key)) or 0) + 1)])


class Relay(LayoutDomain):
    """Counts what it passes on."""

    name = "relay"
    events = Passed
    commands = (CommandSpec(name="pass", data=Pass, decide=pass_on),)
    sends = True

    def new_state(self) -> State:
        return HashLayout(Key, int)

    def evolve(self, state: State, event: Passed, at: At) -> None:
        state.put((at.tenant, at.key), event.count)


DOMAIN = Relay()
