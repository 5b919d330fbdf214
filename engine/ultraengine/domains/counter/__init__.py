"""The counter domain: the smallest complete example, used in docs, tests and benchmarks."""

from ultraengine.domains.counter.domain import DOMAIN

__all__ = ["DOMAIN"]
