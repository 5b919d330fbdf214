"""State layouts: how a domain keeps things in memory (requirement 001 §2.3, §6.1)."""

from ultraengine.execution.layouts.adjacency import AdjacencyLayout, Walk
from ultraengine.execution.layouts.columnar import ColumnarLayout
from ultraengine.execution.layouts.domain import LayoutDomain
from ultraengine.execution.layouts.hash import HashLayout
from ultraengine.execution.layouts.prejoined import Joined, PrejoinedLayout
from ultraengine.execution.layouts.sorted import SortedLayout

__all__ = [
    "AdjacencyLayout",
    "ColumnarLayout",
    "HashLayout",
    "Joined",
    "LayoutDomain",
    "PrejoinedLayout",
    "SortedLayout",
    "Walk",
]
