"""State layouts: how a domain keeps things in memory (requirement 001 §2.3, §6.1)."""

from ultraengine.execution.layouts.domain import LayoutDomain
from ultraengine.execution.layouts.hash import HashLayout

__all__ = ["HashLayout", "LayoutDomain"]
