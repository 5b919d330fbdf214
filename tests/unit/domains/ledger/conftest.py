"""A ledger on the real registry, pipeline and executor, without a log."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ultraengine.domains.ledger import Ledger
from ultraengine.domains.ledger.check import check_history
from ultraengine.execution.pipeline import Verdict
from ultraengine.execution.registry import Admitted
from ultraengine.execution.system import Tick, system_command
from ultraengine.model.ids import Epoch, Instant
from ultraengine.model.outcome import Status
from ultraengine.testing.memory import Bench

SECOND = 1_000_000


class LedgerBench(Bench):
    """`Bench` with the ledger's words."""

    def __init__(self) -> None:
        super().__init__(Ledger())
        self.reads = {spec.path: spec for spec in self.registry.domains[0].queries}

    def do(self, name: str, data: Any, **options: Any) -> Verdict:
        """Run a ledger command that must not raise inside."""
        executed = self.run(f"ledger.{name}", data, **options)
        if executed.error is not None:
            raise executed.error
        return executed

    def statuses(self, name: str, data: Any, **options: Any) -> list[str]:
        """The result codes of a command's items."""
        result = self.do(name, data, **options).result
        items = result.accounts if hasattr(result, "accounts") else result.transfers
        return [item.status for item in items]

    def open(self, *ids: str, key: str = "k", **members: Any) -> None:
        """Open accounts in USD/2."""
        data = {"accounts": [{"id": name, "asset": "USD/2", **members} for name in ids]}
        assert self.statuses("open_accounts", data, key=key) == ["opened"] * len(ids)

    def move(self, id: str, source: str, target: str, amount: Any, **members: Any) -> str:
        """Make one transfer; returns its result code."""
        at, key = members.pop("at", None), members.pop("key", "k")
        item = {"id": id, "from": source, "to": target, "amount": amount, **members}
        return self.statuses("create_transfers", {"transfers": [item]}, at=at, key=key)[0]

    def one(self, name: str, at: int | None = None, **item: Any) -> str:
        """Run a command over one transfer; returns its result code."""
        return self.statuses(name, {"transfers": [item]}, at=at)[0]

    def tick(self, at: int, count_max: int = 1_000) -> int:
        """Let timers expire at `at`; returns how many events that made."""
        self.time = Instant(max(self.time, at))
        offset = self.executor.applied_end
        command = system_command(Tick(domain="ledger", count_max=count_max), offset=offset)
        executed = self.executor.execute(
            Admitted(command, None, None), offset=offset, time=self.time, epoch=Epoch(1)
        )
        self.log.append((command, executed.outcome, self.time))
        return len(msgspec.msgpack.decode(executed.outcome.events))

    def slot(self, key: str = "k", tenant: str = "t") -> Any:
        """The state of a book's slot."""
        return self.executor.slot_state("ledger", tenant, key)

    def history_view(self) -> Any:
        """History up to now."""
        return self.history.view("ledger", lambda: self.executor.applied_end)

    def get(self, path: str, key: str = "k", **params: Any) -> Any:
        """Serve one read as the edge does: parameters are text."""
        spec = self.reads["{key}/" + path]
        typed = msgspec.convert(
            {name: str(value) for name, value in params.items()}, spec.params, strict=False
        )
        captured = spec.capture(self.slot(key), "t", key, typed)
        if spec.render is None:
            return captured
        return spec.render(captured, typed, self.history_view())

    def balance(self, id: str, **params: Any) -> int:
        """Balance of an account."""
        return int(self.get("accounts/{id}", id=id, **params).balance)

    def verify(self) -> None:
        """All invariants, in memory and against the history."""
        assert list(self.executor.check()) == []
        for image in self.executor.slots.values():
            if image.states[0] is not None:
                assert list(check_history(image.states[0], self.history_view())) == []

    def rejected(self, name: str, data: Any, **options: Any) -> Any:
        """The failure of a command that must be rejected."""
        executed = self.do(name, data, **options)
        assert executed.outcome.status == Status.REJECTED
        return executed.outcome.failure


@pytest.fixture
def bench() -> LedgerBench:
    """An empty ledger."""
    return LedgerBench()


@pytest.fixture
def books(bench: LedgerBench) -> LedgerBench:
    """A bank without limits, and alice and bob with 1,000 each."""
    bench.open("bank", min_balance=None)
    bench.open("alice", "bob")
    assert bench.move("fund-alice", "bank", "alice", 1_000) == "posted"
    assert bench.move("fund-bob", "bank", "bob", 1_000) == "posted"
    return bench


@pytest.fixture
def make_bench() -> Callable[[], LedgerBench]:
    """Makes empty ledgers."""
    return LedgerBench
