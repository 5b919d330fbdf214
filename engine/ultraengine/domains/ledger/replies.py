"""What a command answers: one status per item, in order."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ultraengine.domains.ledger.codes import LINKED_FAILED
from ultraengine.domains.ledger.events import STATUS
from ultraengine.model.domain import Rejection


class ItemResult(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What became of one item."""

    id: str
    status: str
    """A result code (`codes.py`)."""
    detail: str = ""
    """Why it failed, for people; absent when it did not."""


class TransferResults(msgspec.Struct, frozen=True, gc=False):
    """Results of a command over transfers, in the order of its items."""

    transfers: list[ItemResult]


class AccountResults(msgspec.Struct, frozen=True, gc=False):
    """Results of a command over accounts, in the order of its items."""

    accounts: list[ItemResult]


Fold = Callable[[Sequence[Any], Sequence[Any]], tuple[bool, Any, Rejection | None]]


def _fold(
    list_name: str, items: Sequence[Any], verdicts: Sequence[Any]
) -> tuple[bool, list[ItemResult], Rejection | None]:
    results = []
    first: tuple[int, Rejection] | None = None
    for item, verdict in zip(items, verdicts, strict=True):
        status = STATUS.get(type(verdict))
        if status is not None:
            results.append(ItemResult(item.id, status))
            continue
        # A chain's other members say nothing about why it failed.
        if first is None and verdict is not LINKED_FAILED:
            first = len(results), verdict
        results.append(ItemResult(item.id, verdict.code, verdict.detail))
    if first is None:
        return True, results, None
    index, verdict = first
    pointer = verdict.pointer or f"/data/{list_name}/{index}"
    changed = any(type(verdict) is not Rejection for verdict in verdicts)
    return changed, results, Rejection(verdict.code, verdict.detail, pointer)


def fold_transfers(
    items: Sequence[Any], verdicts: Sequence[Any]
) -> tuple[bool, TransferResults, Rejection | None]:
    """(something was done, results, first cause of failure)."""
    changed, results, first = _fold("transfers", items, verdicts)
    return changed, TransferResults(results), first


def fold_accounts(
    items: Sequence[Any], verdicts: Sequence[Any]
) -> tuple[bool, AccountResults, Rejection | None]:
    """(something was done, results, first cause of failure)."""
    changed, results, first = _fold("accounts", items, verdicts)
    return changed, AccountResults(results), first
