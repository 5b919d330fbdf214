"""What a syntax tree says about names: which are bound where, which hold sets or floats."""

import ast
from collections.abc import Iterator
from typing import Final

_SET_TYPES: Final = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})
_SET_METHODS: Final = frozenset(
    {"union", "intersection", "difference", "symmetric_difference", "copy"}
)
_SET_OPERATORS: Final = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
_CONTAINERS: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Scope:
    """Names bound in one function, class or module."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bound: set[str] = set()
        self.sets: set[str] = set()
        self.floats: set[str] = set()


class Names:
    """Knowledge of one file, with the scopes that are open at the place being looked at."""

    def __init__(self, tree: ast.Module) -> None:
        module = Scope("<module>")
        self.scopes: list[Scope] = [module]
        self._set_attributes: frozenset[str] = frozenset()
        self._float_attributes: frozenset[str] = frozenset()
        self._learn_attributes(tree)
        self._bind(tree.body, module)
        self.containers = {
            target.id
            for statement in tree.body
            if isinstance(getattr(statement, "value", None), _CONTAINERS)
            for target in targets_of(statement)
            if isinstance(target, ast.Name)
        }
        """Names of the module's lists, dicts and sets."""

    @property
    def within(self) -> str:
        """Qualified name of the open scope."""
        return ".".join(scope.name for scope in self.scopes[1:]) or "<module>"

    def open(self, node: Function | ast.ClassDef) -> None:
        """Enter a function or class."""
        scope = Scope("<lambda>" if isinstance(node, ast.Lambda) else node.name)
        if not isinstance(node, ast.ClassDef):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
            for argument in every:
                scope.bound.add(argument.arg)
                self._learn(argument.arg, argument.annotation, None, scope)
            if not isinstance(node, ast.Lambda):
                self._bind(node.body, scope)
        self.scopes.append(scope)

    def close(self) -> None:
        """Leave the function or class entered last."""
        self.scopes.pop()

    def is_bound(self, name: str) -> bool:
        """Whether the file itself gives this name a meaning here."""
        return any(name in scope.bound for scope in self.scopes)

    def is_container_of_module(self, node: ast.AST) -> bool:
        """Whether a function is open and `node` names a list, dict or set of the module."""
        if not isinstance(node, ast.Name) or node.id not in self.containers:
            return False
        inside = self.scopes[1:]
        return bool(inside) and not any(node.id in scope.bound for scope in inside)

    def is_set(self, node: ast.AST, inner: Scope | None = None) -> bool:
        """Whether an expression is known to be a set; `inner` is a scope not open yet."""
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Name):
            for scope in ([inner] if inner else []) + self.scopes[::-1]:
                if node.id in scope.bound:
                    return node.id in scope.sets
            return False
        if isinstance(node, ast.Attribute):
            return node.attr in self._set_attributes
        if isinstance(node, ast.Call):
            return self._makes_set(node, inner)
        if isinstance(node, ast.BinOp) and isinstance(node.op, _SET_OPERATORS):
            sides = (node.left, node.right)
            return any(self.is_set(side, inner) or _is_view(side) for side in sides)
        if isinstance(node, ast.IfExp):
            return self.is_set(node.body, inner) or self.is_set(node.orelse, inner)
        return isinstance(node, ast.NamedExpr) and self.is_set(node.value, inner)

    def _makes_set(self, node: ast.Call, inner: Scope | None) -> bool:
        function = node.func
        if isinstance(function, ast.Attribute):
            return function.attr in _SET_METHODS and self.is_set(function.value, inner)
        return last_name(function) in ("set", "frozenset")

    def is_float(self, node: ast.AST) -> bool:
        """Whether floats take part in an expression, as far as it shows."""
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, float):
                return True
            if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Div):
                return True
            if isinstance(part, ast.Call) and last_name(part.func) == "float":
                return True
            if isinstance(part, ast.Attribute) and part.attr in self._float_attributes:
                return True
            if isinstance(part, ast.Name) and any(part.id in s.floats for s in self.scopes):
                return True
        return False

    def _learn_attributes(self, tree: ast.AST) -> None:
        """Attributes that are declared as a set or a float, and nowhere as something else."""
        kinds: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign):
                        name = last_name(field.target)
                        kinds.setdefault(name, set()).add(_kind(field.annotation))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                kinds.setdefault(node.target.attr, set()).add(_kind(node.annotation))
            elif isinstance(node, ast.Assign) and self.is_set(node.value):
                for target in node.targets:
                    if isinstance(target, ast.Attribute):
                        kinds.setdefault(target.attr, set()).add("set")
        self._set_attributes = frozenset(n for n, found in kinds.items() if found == {"set"})
        self._float_attributes = frozenset(n for n, found in kinds.items() if found == {"float"})

    def _bind(self, body: list[ast.stmt], scope: Scope) -> None:
        """Learn the names that a body binds, without entering functions inside it."""
        for node in _shallow(body):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                scope.bound.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    scope.bound.add((alias.asname or alias.name).partition(".")[0])
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                scope.bound.add(node.id)
            annotation = node.annotation if isinstance(node, ast.AnnAssign) else None
            for target in targets_of(node):
                if isinstance(target, ast.Name):
                    self._learn(target.id, annotation, getattr(node, "value", None), scope)

    def _learn(
        self, name: str, annotation: ast.expr | None, value: ast.expr | None, scope: Scope
    ) -> None:
        kind = "" if annotation is None else _kind(annotation)
        if kind == "set" or (value is not None and self.is_set(value, scope)):
            scope.sets.add(name)
        if kind == "float" or isinstance(getattr(value, "value", None), float):
            scope.floats.add(name)


def own_imports(tree: ast.AST, package: str, own: str) -> list[str]:
    """Absolute names that a module of `package` imports from below `own`."""
    return [
        name
        for node in ast.walk(tree)
        for name in _imported(node, package)
        if name == own or name.startswith(f"{own}.")
    ]


def _imported(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = node.module or ""
    if node.level:
        parents = package.split(".")
        base = ".".join(parents[: len(parents) - node.level + 1])
        module = f"{base}.{module}" if module else base
    return [f"{module}.{alias.name}" for alias in node.names]


def targets_of(node: ast.AST) -> list[ast.expr]:
    """What an assignment assigns to; nothing for other nodes."""
    if isinstance(node, ast.Assign):
        return node.targets
    if isinstance(node, ast.AnnAssign | ast.NamedExpr | ast.AugAssign):
        return [node.target]
    return []


def last_name(node: ast.AST) -> str:
    """The last part of a dotted name, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _shallow(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node of a body in order of text, without what is inside functions and classes."""
    waiting: list[ast.AST] = body[::-1]  # type: ignore[assignment]  # statements are nodes
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef):
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def _is_view(node: ast.AST) -> bool:
    """``d.keys()`` and ``d.items()``: operators make sets of them."""
    return isinstance(node, ast.Call) and last_name(node.func) in ("keys", "items")


def _kind(annotation: ast.expr) -> str:
    """``set`` for sets of anything, ``float`` when floats are in it, else empty."""
    if isinstance(annotation, ast.BinOp):
        kinds = {_kind(annotation.left), _kind(annotation.right)}
        return next((kind for kind in ("set", "float") if kind in kinds), "")
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    if last_name(outer) in _SET_TYPES:
        return "set"
    return "float" if any(last_name(part) == "float" for part in ast.walk(annotation)) else ""
