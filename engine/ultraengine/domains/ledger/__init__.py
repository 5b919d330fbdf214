"""The ledger: double-entry accounts, transfers, holds and statements (`docs/ledger.md`)."""

from typing import Final

from ultraengine.domains.ledger.domain import Ledger

DOMAIN: Final = Ledger()
"""What a configuration names: ``ultraengine.domains.ledger:DOMAIN``."""

__all__ = ["DOMAIN", "Ledger"]
