"""Python client of the engine.

    from ultraengine.client import Client, SyncClient

`Client` is asynchronous, `SyncClient` has the same methods for other programs.  Imports
nothing of the engine but its words (`ultraengine.model`).
"""

from ultraengine.client.backoff import Backoff
from ultraengine.client.client import DEFAULT_URL, Client
from ultraengine.client.errors import (
    ClientError,
    OutcomeUnknown,
    Refused,
    Rejected,
    Unreachable,
)
from ultraengine.client.ids import IdSource
from ultraengine.client.pending import NewCommand
from ultraengine.client.reads import Answer, Outcome
from ultraengine.client.sync import SyncClient
from ultraengine.model.reply import Reply

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "Backoff",
    "Client",
    "ClientError",
    "IdSource",
    "NewCommand",
    "Outcome",
    "OutcomeUnknown",
    "Refused",
    "Rejected",
    "Reply",
    "SyncClient",
    "Unreachable",
]
