"""The source check: each refused thing is named with its line, and right code passes."""

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.testing import refusal
from ultraengine.testing.refusal import Advice, Finding
from ultraengine.testing.source_check import (
    check_domain,
    check_module,
    check_source,
    domain_modules,
)

REFUSED: list[tuple[str, Advice]] = [
    ("import time", refusal.CLOCK),
    ("import os.path", refusal.ENVIRONMENT),
    ("from os import environ", refusal.ENVIRONMENT),
    ("import random", refusal.CHANCE),
    ("from random import Random, random", refusal.CHANCE),
    ("from uuid import uuid4", refusal.IDENTITY),
    ("import socket", refusal.WORLD),
    ("import threading", refusal.THREADS),
    ("import concurrent.futures", refusal.THREADS),
    ("import logging", refusal.OUTPUT),
    ("import zoneinfo", refusal.ZONE),
    ("import requests", refusal.IMPORT),
    ("import ultraengine.log.driver", refusal.IMPORT),
    ("from ultraengine.execution import executor", refusal.IMPORT),
    ("from ultraengine.modelling import x", refusal.IMPORT),
    ("def f():\n    import time", refusal.CLOCK),
    ("if TYPE_CHECKING:\n    pass\nelse:\n    import time", refusal.CLOCK),
    ("x = hash('a')", refusal.HASHES),
    ("x = sorted([], key=id)", refusal.ADDRESSES),
    ("print('x')", refusal.OUTPUT),
    ("x = open('f')", refusal.WORLD),
    ("x = eval('1')", refusal.CODE),
    ("def f(x): return hash(x)\ndef g(hash): return hash(1)", refusal.HASHES),
    ("from datetime import datetime\nx = datetime.now()", refusal.CLOCK),
    ("import datetime\nx = datetime.date.today()", refusal.CLOCK),
    ("from datetime import datetime\nx = datetime.fromtimestamp(5)", refusal.ZONE),
    ("async def f(): ...", refusal.THREADS),
    ("def f():\n    global x\n    x = 1", refusal.MODULE_STATE),
    ("CACHE = {}\ndef f(k):\n    CACHE[k] = 1", refusal.MODULE_STATE),
    ("CACHE = {}\ndef f(k):\n    del CACHE[k]", refusal.MODULE_STATE),
    ("SEEN: list[int] = []\ndef f(k):\n    SEEN.append(k)", refusal.MODULE_STATE),
    ("for x in {1, 2}: pass", refusal.SET_ORDER),
    ("x = list({1, 2})", refusal.SET_ORDER),
    ("x = tuple(set('ab'))", refusal.SET_ORDER),
    ("x = [*frozenset('ab')]", refusal.SET_ORDER),
    ("a, b = {1, 2}", refusal.SET_ORDER),
    ("x = ','.join({'a'} | {'b'})", refusal.SET_ORDER),
    ("x = f'{set()}'", refusal.SET_ORDER),
    ("x = [y for y in {1, 2}]", refusal.SET_ORDER),
    ("x = {y: 1 for y in {1, 2}}", refusal.SET_ORDER),
    ("x = list(y for y in {1, 2})", refusal.SET_ORDER),
    ("s = set()\nfor x in s: pass", refusal.SET_ORDER),
    ("def f(s: set[str]):\n    for x in s: pass", refusal.SET_ORDER),
    ("def f(s: frozenset[str] | None):\n    return list(s)", refusal.SET_ORDER),
    ("def f(s: set[str]):\n    return s.pop()", refusal.SET_ORDER),
    ("def f(s: AbstractSet[str]):\n    yield from s", refusal.SET_ORDER),
    ("def f(*s: set[str]):\n    t = s | {1}\n    return next(iter(t))", refusal.SET_ORDER),
    ("def f(a, b):\n    return list(a.keys() & b)", refusal.SET_ORDER),
    ("def f(s: set[str]):\n    return list(s.union([1]))", refusal.SET_ORDER),
    ("def f(s: set[str], c):\n    return list(s if c else [])", refusal.SET_ORDER),
    ("def f():\n    return list(t := {1})", refusal.SET_ORDER),
    ("class S:\n    names: set[str]\ndef f(s):\n    for n in s.names: pass", refusal.SET_ORDER),
    (
        "class S:\n  def __init__(self): self.n = set()\n  def f(self): return list(self.n)",
        refusal.SET_ORDER,
    ),
    (
        "class S:\n  def __init__(self): self.n: set[int] = g()\n  def f(self): list(self.n)",
        refusal.SET_ORDER,
    ),
    ("x = sum([1.5, 2])", refusal.FLOAT_SUM),
    ("def f(xs: list[float]):\n    return sum(xs)", refusal.FLOAT_SUM),
    ("def f(xs):\n    return sum(x / 2 for x in xs)", refusal.FLOAT_SUM),
    ("def f(xs):\n    return sum(map(float(1), xs))", refusal.FLOAT_SUM),
    ("half = 0.5\ndef f(xs):\n    return sum(x * half for x in xs)", refusal.FLOAT_SUM),
    (
        "class R:\n    price: float | None\ndef f(rs):\n    return sum(r.price for r in rs)",
        refusal.FLOAT_SUM,
    ),
]

RIGHT = [
    "import msgspec\nfrom collections.abc import Sequence\nfrom . import other",
    "from random import Random\nfrom uuid import UUID",
    "from ultraengine.model.domain import Accepted\nfrom ultraengine.execution.layouts import X",
    "import shop.prices\nfrom shop import stock",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import os",
    "def f(id, hash): return id + hash",
    "class S:\n    id: str\ndef f(s): return s.id",
    "def open(x): return x\ndef f(): return open(1)",
    "for x in sorted({1, 2}): pass",
    "x = any(y for y in {1, 2})",
    "x = sorted(y for y in {1, 2})",
    "x = {y for y in {1, 2}}",
    "x = len({1}) + max({1}) + (1 if 1 in {1} else 0)",
    "def f(s: dict[str, set[int]]):\n    for x in s: pass",
    "class A:\n    n: set[int]\nclass B:\n    n: list[int]\ndef f(b):\n    return list(b.n)",
    "s = {1}\ndef f(s: list[int]):\n    return list(s)",
    "x = sum([1, 2])\ny = 0.5",
    "import math\ndef f(xs: list[float]): return math.fsum(xs)",
    "CACHE = {}\ndef f(k):\n    CACHE = {}\n    CACHE[k] = 1\n    return CACHE",
    "CACHE = {}\nCACHE['a'] = 1",
    "TABLE = {1: 2}\ndef f(k):\n    return TABLE[k]",
    "from datetime import UTC, datetime\nx = datetime.fromtimestamp(5, tz=UTC)",
    "from datetime import UTC, datetime\nx = datetime.fromtimestamp(5, UTC)",
    "class Shop:\n    def now(self): ...\ndef f(shop): return shop.now()",
    "f = lambda x: x",
]


def _found(source: str) -> list[Finding]:
    return check_source(source, package="shop")


@pytest.mark.parametrize(("source", "advice"), REFUSED)
def test_what_may_differ_elsewhere_is_found_once_with_its_advice(
    source: str, advice: Advice
) -> None:
    assert [finding.advice for finding in _found(source)] == [advice]


@pytest.mark.parametrize("source", RIGHT)
def test_right_code_passes(source: str) -> None:
    assert _found(source) == []


def test_a_finding_names_file_line_function_and_the_way_out() -> None:
    source = "class Shop:\n    def decide(self):\n        x = [1]\n        return hash('a')\n"
    (finding,) = check_source(source, path="shop/domain.py")
    assert str(finding) == (
        "shop/domain.py:4 in Shop.decide: hash() differs between processes for strings and "
        "objects; use hashlib or zlib.crc32 on encoded bytes"
    )


def test_a_line_may_say_why_it_is_deterministic_but_not_without_a_reason() -> None:
    assert _found("for x in {1}: pass  # deterministic: only one element") == []
    assert len(_found("for x in {1}: pass  # deterministic:")) == 1
    assert len(_found("# deterministic: the other line\nfor x in {1}: pass")) == 1


def test_more_modules_can_be_allowed_by_name() -> None:
    source = "import numpy.linalg\nfrom shapely.geometry import Point"
    assert len(check_source(source)) == 2
    assert check_source(source, allow=["numpy", "shapely.geometry"]) == []


def test_the_shipped_counter_is_clean() -> None:
    assert check_domain(DOMAIN) == []
    names = [module.__name__ for module in domain_modules(DOMAIN)]
    assert names == ["ultraengine.domains.counter.domain"]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package whose domain module imports some of its neighbours."""
    files = {
        "__init__.py": "",
        "domain.py": """
            from shop_for_test import prices
            from .rules import decide
            class Domain:
                commands = ()
            DOMAIN = Domain()
        """,
        "prices.py": "def total(x): return sum(x, 0.0)\ny = hash(1)",
        "rules.py": "import shop_for_test.deep.down\ndef decide(): ...",
        "deep/__init__.py": "",
        "deep/down.py": "import time",
        "web.py": "import socket",
    }
    package = tmp_path / "shop_for_test"
    (package / "deep").mkdir(parents=True)
    for name, text in files.items():
        (package / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("shop_for_test.domain")
    for name in [name for name in sys.modules if name.startswith("shop_for_test")]:
        del sys.modules[name]


def test_the_imports_of_a_domain_are_followed_within_its_package(shop: ModuleType) -> None:
    names = {module.__name__ for module in domain_modules(shop.DOMAIN)}
    assert names >= {
        "shop_for_test.domain",
        "shop_for_test.prices",
        "shop_for_test.rules",
        "shop_for_test.deep.down",
    }
    assert "shop_for_test.web" not in names
    findings = check_domain(shop.DOMAIN)
    assert [(Path(f.path).name, f.line, f.advice) for f in findings] == [
        ("down.py", 1, refusal.CLOCK),
        ("prices.py", 1, refusal.FLOAT_SUM),
        ("prices.py", 2, refusal.HASHES),
    ]


def test_a_module_without_source_is_an_error() -> None:
    with pytest.raises(ValueError, match="no source of sys"):
        check_module(sys)
