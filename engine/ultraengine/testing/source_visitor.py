"""The walk over a syntax tree behind `source_check`: which node is refused, and why."""

import ast
from typing import Final

from ultraengine.testing import refusal
from ultraengine.testing.refusal import Advice, Finding
from ultraengine.testing.source_names import Function, Names, last_name

_SHOWS_ORDER: Final = frozenset(
    {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "str", "repr", "deque", "next"}
)
"""Calls that pass the order of an argument on."""
_METHODS_SHOWING_ORDER: Final = frozenset({"join", "extend", "fromkeys", "encode", "format"})
_HIDES_ORDER: Final = frozenset(
    {"sorted", "any", "all", "min", "max", "len", "set", "frozenset", "bool"}
)
"""Calls whose result does not depend on the order of their argument."""
_NOW: Final = frozenset({"now", "utcnow", "today"})
_MUTATORS: Final = frozenset(
    {
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "setdefault",
        "update",
    }
)
_Loops = ast.ListComp | ast.DictComp | ast.GeneratorExp


class SourceVisitor(ast.NodeVisitor):
    """Collects the findings of one file."""

    def __init__(
        self, tree: ast.Module, *, path: str, package: str, allowed: frozenset[str]
    ) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self._allowed = (*sorted(allowed), package) if package else tuple(sorted(allowed))
        self._names = Names(tree)
        self._hidden: list[ast.AST] = []
        """Comprehensions whose order the call around them hides."""
        self.generic_visit(tree)

    def visit(self, node: ast.AST) -> None:
        """Check a node, then what is inside it."""
        if isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
            return
        self._check_statement(node)
        self._check_expression(node)
        if isinstance(node, Function | ast.ClassDef):
            self._names.open(node)
            self.generic_visit(node)
            self._names.close()
        else:
            self.generic_visit(node)

    def _find(self, node: ast.AST, what: str, advice: Advice) -> None:
        line: int = getattr(node, "lineno", 1)
        self.findings.append(Finding(self.path, line, self._names.within, what, advice))

    def _find_order(self, node: ast.expr) -> None:
        self._find(node, ast.unparse(node), refusal.SET_ORDER)

    def _check_statement(self, node: ast.AST) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    self._check_import(node, alias.name, "")
            case ast.ImportFrom(level=0):
                for alias in node.names:
                    self._check_import(node, node.module or "", alias.name)
            case ast.Global():
                self._find(node, f"global {', '.join(node.names)}", refusal.MODULE_STATE)
            case ast.AsyncFunctionDef():
                self._find(node, f"async def {node.name}", refusal.THREADS)
            case ast.For() if self._names.is_set(node.iter):
                self._find_order(node.iter)
            case ast.Assign(targets=[ast.Tuple() | ast.List(), *_]):
                if self._names.is_set(node.value):
                    self._find_order(node.value)

    def _check_expression(self, node: ast.AST) -> None:
        match node:
            case ast.Name(ctx=ast.Load()):
                advice = refusal.BUILTINS.get(node.id)
                if advice and not self._names.is_bound(node.id):
                    self._find(node, f"{node.id}()", advice)
            case ast.Subscript(ctx=ast.Store() | ast.Del()):
                if self._names.is_container_of_module(node.value):
                    self._find(node, ast.unparse(node), refusal.MODULE_STATE)
            case ast.Call():
                self._check_call(node)
            case ast.Starred(ctx=ast.Load()) | ast.FormattedValue() | ast.YieldFrom():
                if self._names.is_set(node.value):
                    self._find_order(node.value)
            case ast.ListComp() | ast.DictComp() | ast.GeneratorExp():
                self._check_loops(node)

    def _check_import(self, node: ast.stmt, module: str, name: str) -> None:
        full = f"{module}.{name}" if name else module
        known = any(f"{full}.".startswith(f"{allowed}.") for allowed in self._allowed)
        if not known and (module, name) not in refusal.ALLOWED_NAMES:
            advice = refusal.MODULES.get(module.partition(".")[0], refusal.IMPORT)
            self._find(node, f"import of {full}", advice)

    def _check_call(self, node: ast.Call) -> None:
        function, name = node.func, last_name(node.func)
        if isinstance(function, ast.Attribute):
            self._check_method(node, function)
            return
        if name in _SHOWS_ORDER and any(map(self._names.is_set, node.args)):
            self._find_order(node)
        elif name == "sum" and any(map(self._names.is_float, node.args)):
            self._find(node, ast.unparse(node), refusal.FLOAT_SUM)
        elif name in _HIDES_ORDER and len(node.args) == 1:
            self._hidden.append(node.args[0])

    def _check_method(self, node: ast.Call, function: ast.Attribute) -> None:
        owner, name = function.value, function.attr
        called = f"{ast.unparse(function)}()"
        passed_on = name in _METHODS_SHOWING_ORDER and any(map(self._names.is_set, node.args))
        if name in _NOW and last_name(owner) in ("datetime", "date"):
            self._find(node, called, refusal.CLOCK)
        elif name == "fromtimestamp" and len(node.args) + len(node.keywords) < 2:
            self._find(node, called, refusal.ZONE)
        elif passed_on or (name == "pop" and not node.args and self._names.is_set(owner)):
            self._find_order(node)
        if name in _MUTATORS and self._names.is_container_of_module(owner):
            self._find(node, called, refusal.MODULE_STATE)

    def _check_loops(self, node: _Loops) -> None:
        if any(node is hidden for hidden in self._hidden):
            return
        for loop in node.generators:
            if self._names.is_set(loop.iter):
                self._find_order(loop.iter)
