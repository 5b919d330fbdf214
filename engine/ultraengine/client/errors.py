"""What can go wrong for a caller of the client, by how much is known about the command.

    Rejected         decided and logged: the domain said no; the same id gets the same answer
    Refused          never logged: shape, authorization, overload until the deadline
    Unreachable      no connection until the deadline; nothing was logged
    OutcomeUnknown   sent, but no answer: it may or may not have taken effect

After `OutcomeUnknown` ask ``client.outcome(key=, id=)`` or send again with the same id.
"""

from ultraengine.model.reply import Reply


class ClientError(Exception):
    """Base of all errors of the client.  ``code`` is stable; see `docs/errors.md`."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        advice: str = "",
        reply: Reply | None = None,
        id: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.advice = advice
        self.reply = reply
        self.id = id
        self.key = key


class Rejected(ClientError):
    """A domain rule said no: logged, remembered, and the same for every retry."""


class Refused(ClientError):
    """The engine did not take the command or the read; nothing was logged."""


class Unreachable(ClientError):
    """No connection to the engine until the deadline: nothing was logged."""


class OutcomeUnknown(ClientError):
    """The command was sent and no answer came: it may or may not have taken effect."""
