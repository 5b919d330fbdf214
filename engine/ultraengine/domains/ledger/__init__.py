"""The ledger: double-entry accounts, transfers, holds and statements (`docs/ledger.md`)."""

from ultraengine.domains.ledger.domain import DOMAIN, Ledger

__all__ = ["DOMAIN", "Ledger"]
