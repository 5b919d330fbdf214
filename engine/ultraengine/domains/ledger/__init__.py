"""The ledger: double-entry accounts, transfers, holds and statements (`docs/ledger.md`)."""

from ultraengine.domains.ledger.domain import Ledger

__all__ = ["Ledger"]
