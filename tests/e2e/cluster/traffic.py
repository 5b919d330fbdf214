"""Clients that go on paying while the cluster is hurt, and a journal of what they were told."""

import itertools
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from tests.e2e.cluster.cluster import until

from ultraengine.client import ClientError, NewCommand, Reply, SyncClient

BOOKS: Final = ("amsterdam", "berlin", "cairo", "delhi", "edinburgh", "florence", "geneva", "hanoi")
"""Keys: with two shards each of them owns some."""
PAUSE_S: Final = 0.05
"""Between two payments of a client: the machine has other work."""
DEADLINE_S: Final = 300.0
"""How long our client tries one command; a test that needs all of it has failed anyway."""


class Traffic:
    """One client thread for each book, through one address, until left.

    A command counts as failed when our own client, which sends again with the same id, gave up.
    """

    def __init__(self, address: str, books: Sequence[str] = BOOKS) -> None:
        self._books = books
        self._client = SyncClient(address, deadline_s=DEADLINE_S)
        self._sent: dict[str, NewCommand] = {}
        self._told: dict[str, Reply] = {}
        self._failed: list[str] = []
        self._stop = threading.Event()
        self._clients: list[threading.Thread] = []
        self._numbers = itertools.count()

    def open_accounts(self) -> None:
        """One account that may go below zero, and one that is paid, in each book."""
        accounts = [
            {"id": "alice", "asset": "USD/2", "min_balance": None},
            {"id": "shop", "asset": "USD/2"},
        ]
        for book in self._books:
            self._send(book, "ledger.open_accounts", {"accounts": accounts})

    def pay(self, book: str) -> None:
        """One payment of one cent, with its own id."""
        transfer = {"id": f"t{next(self._numbers)}", "from": "alice", "to": "shop", "amount": "1"}
        self._send(book, "ledger.create_transfers", {"transfers": [transfer]})

    def _send(self, book: str, kind: str, data: dict[str, Any]) -> None:
        name = f"c{next(self._numbers)}"
        self._sent[name] = NewCommand(id=name, type=kind, key=book, data=data)
        try:
            self._told[name] = self._client.send(kind, key=book, data=data, id=name)
        except ClientError as error:
            self._failed.append(f"{name} {book}: {error}")

    def _go_on(self, book: str) -> None:
        while not self._stop.wait(PAUSE_S):
            self.pay(book)

    def __enter__(self) -> Self:
        self._stop.clear()
        self._clients = [threading.Thread(target=self._go_on, args=(book,)) for book in self._books]
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def go_on(self, count: int) -> None:
        """Wait until every book was paid so often again."""
        wanted = {book: self.paid(book) + count for book in self._books}
        until(
            f"{count} more payments in every book; failed so far:",
            lambda: all(self.paid(book) >= wanted[book] for book in self._books),
            lambda: self._failed,
        )

    def paid(self, book: str) -> int:
        """Payments into a book that were acknowledged."""
        return sum(
            self._sent[name].key == book and self._sent[name].type == "ledger.create_transfers"
            for name in list(self._told)
        )

    @property
    def positions(self) -> dict[int, int]:
        """The newest acknowledged offset of each shard."""
        found: dict[int, int] = {}
        for reply in self._told.values():
            if reply.shard is not None and reply.offset is not None:
                found[reply.shard] = max(found.get(reply.shard, -1), reply.offset)
        return found

    def check(self) -> None:
        """Nothing failed; every acknowledged command is there, once, with its first reply."""
        assert self._failed == []
        assert self._sent.keys() == self._told.keys()
        self._check_balances()
        names = list(self._told)
        for name, again in zip(
            names, self._client.send_all(self._sent[name] for name in names), strict=True
        ):
            first = self._told[name]
            assert again.duplicate, (first, again)
            assert (again.shard, again.offset, again.result) == (
                first.shard, first.offset, first.result,
            )  # fmt: skip
        self._check_balances()
        places = [(reply.shard, reply.offset) for reply in self._told.values()]
        assert len(set(places)) == len(places)

    def shards(self) -> set[int | None]:
        """Shards that have answered."""
        return {reply.shard for reply in self._told.values()}

    def _check_balances(self) -> None:
        for book in self._books:
            shop = self._client.get(f"ledger/{book}/accounts/shop").value
            assert shop["balance"] == str(self.paid(book)), (book, shop, self.paid(book))
