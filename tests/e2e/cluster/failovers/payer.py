"""Clients that pay in a pod beside the engine, and a journal of what they sent and were told.

Arguments: the engine's address, a directory, how many clients. Each client has a book of its own
and pays one cent after the other, each with its own id. `journal` gets a line before a command is
sent and one when its answer has come; its clock is the one that all nodes of the lab share. Once
there is a file `stop`, everybody ends with what is under way, and `done` gets the balances.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from ultraengine.client import Client, ClientError

PAUSE_S: Final = 0.04
"""Between two payments of a client: the machine has other work."""
DEADLINE_S: Final = 900.0
"""How long our client tries one command: longer than any fault lasts."""


class Payer:
    """One client, one book."""

    def __init__(self, address: str, number: int, place: Path) -> None:
        self.book = f"book-{number}"
        self._client = Client(address, deadline_s=DEADLINE_S)
        self._place = place
        self._journal = (place / "journal").open("a", buffering=1)
        self._sent = 0

    def _note(self, **facts: Any) -> None:
        self._journal.write(json.dumps({**facts, "at": time.monotonic()}) + "\n")

    async def _send(self, kind: str, data: dict[str, Any]) -> None:
        name = f"{self.book}-{self._sent}"
        self._sent += 1
        self._note(sent=name, kind=kind)
        try:
            reply = await self._client.send(kind, key=self.book, data=data, id=name)
        except ClientError as error:
            self._note(failed=name, code=error.code)
            return
        self._note(told=name, shard=reply.shard, epoch=reply.epoch, offset=reply.offset)

    async def pay(self) -> int:
        """Pay until told to stop; the balance that the engine has then."""
        accounts = [
            {"id": "alice", "asset": "USD/2", "min_balance": None},
            {"id": "shop", "asset": "USD/2"},
        ]
        async with self._client:
            await self._send("ledger.open_accounts", {"accounts": accounts})
            while not (self._place / "stop").exists():
                payment = {"id": f"t{self._sent}", "from": "alice", "to": "shop", "amount": "1"}
                await self._send("ledger.create_transfers", {"transfers": [payment]})
                await asyncio.sleep(PAUSE_S)
            found = await self._client.get(f"ledger/{self.book}/accounts/shop")
            return int(found.value["balance"])


async def main(address: str, place: Path, count: int) -> None:
    payers = [Payer(address, number, place) for number in range(count)]
    balances = await asyncio.gather(*(payer.pay() for payer in payers))
    told = {payer.book: balance for payer, balance in zip(payers, balances, strict=True)}
    (place / "done.new").write_text(json.dumps(told))
    (place / "done.new").rename(place / "done")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
