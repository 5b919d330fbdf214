"""Rules of the project that a machine keeps: purity, sizes, names, prints."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine" / "ultraengine"
ADAPTERS = ROOT / "platform_adapters" / "ultraengine_adapters"
OPERATOR = ROOT / "operator" / "ultraengine_operator"
SOURCES = sorted([*ENGINE.rglob("*.py"), *ADAPTERS.rglob("*.py"), *OPERATOR.rglob("*.py")])

WORLDLY_FILES = {"driver.py", "main.py"}
WORLDLY_FOLDERS = ("cli", "client", "testing", "drivers")
EDGE = {
    # The HTTP edge: what speaks to sockets besides its driver.
    f"gateway/{name}.py"
    for name in ("http", "stream", "streams", "admin", "reads", "edge",
                 "admission", "waits", "engine", "frames", "events", "quick", "feeds",
                 "handing", "known_map", "lent", "relay", "routed", "routed_feeds",
                 "routed_http", "routed_stream", "watch")
} | {
    # Sockets between replicas, besides their driver.
    "replication/link.py",
    "edge/door.py", "edge/documents.py", "edge/routes.py", "edge/server.py", "query/http.py",
}  # fmt: skip
WORLDLY_IMPORTS = {
    "asyncio", "concurrent", "multiprocessing", "os", "queue", "random", "secrets", "select",
    "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
ALLOWED_IMPORTS = {
    # Whether compiled parts are left out is decided once, before anything is imported.
    ("compiled.py", "os"),
    # A seeded generator is a function of its seed.
    ("execution/context.py", "random"),
    ("model/domain.py", "random"),
    # A lock around a cache that readers on other threads share; it never waits for the world.
    ("log/catalog.py", "threading"),
}
LINES_MAX = 500
FUNCTION_LINES_MAX = 75
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}


def name_of(path: Path) -> str:
    root = next(one for one in (ENGINE, ADAPTERS, OPERATOR) if path.is_relative_to(one))
    return path.relative_to(root).as_posix()


def is_pure(path: Path) -> bool:
    name = name_of(path)
    if path.is_relative_to(ADAPTERS) or path.name in WORLDLY_FILES or name in EDGE:
        return False
    return not name.startswith(tuple(f"{folder}/" for folder in WORLDLY_FOLDERS))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


def protocol_lines(tree: ast.AST) -> set[int]:
    """Lines of classes that declare a Protocol: an async signature there waits for nothing."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(
            "Protocol" in ast.unparse(base) for base in node.bases
        ):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


@pytest.mark.parametrize("path", [path for path in SOURCES if is_pure(path)], ids=name_of)
def test_a_pure_module_neither_waits_nor_touches_the_world(path: Path) -> None:
    tree = ast.parse(path.read_text())
    name = name_of(path)
    touched = {
        module
        for module in imports(tree)
        if module in WORLDLY_IMPORTS and (name, module) not in ALLOWED_IMPORTS
    }
    assert not touched, f"{name} imports {sorted(touched)}"
    declared = protocol_lines(tree)
    waiting = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef) and node.lineno not in declared
    ]
    assert not waiting, f"{name} waits in {waiting}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LINES_MAX
    assert path.stem not in FORBIDDEN_NAMES
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if not name_of(path).startswith("cli/")], ids=name_of
)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not calls, f"{name_of(path)} prints in lines {calls}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{name_of(path)} has no docstring"


def test_the_operator_folder_is_a_source_root_and_never_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
