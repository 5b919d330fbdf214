"""The tables of `docs/operations.md`, made of `config.py` and `model/limits.py` by `make docs`."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

from ultraengine.config import Config
from ultraengine.model.limits import Limits

OTHERS = {"limits"}
"""Members of `Config` that are no settings of their own."""


def texts(kind: type) -> dict[str, str]:
    """What stands below each member of a class, as one line; a text may be for several members."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    waiting: list[str] = []
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and waiting:
            text = re.sub(r"\s+", " ", str(node.value.value)).replace("``", "`")
            found |= dict.fromkeys(waiting, text)
            waiting = []
    return found


def shown(value: Any) -> str:
    """A default as it would be set."""
    if value in (None, "", ()):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def rows(kind: type, prefix: str) -> list[str]:
    """One row for each member."""
    meaning, defaults = texts(kind), kind()
    return [
        f"| `{prefix}{name.upper()}` | {shown(getattr(defaults, name))} | {meaning[name]} |"
        for name in kind.__struct_fields__  # type: ignore[attr-defined]
        if name not in OTHERS
    ]


def tables() -> str:
    """Both tables."""
    head = ["| variable | default | meaning |", "|---|---|---|"]
    settings = [*head, *rows(Config, "ULTRA_")]
    limits = [*head, *rows(Limits, "ULTRA_LIMIT_")]
    return "\n".join(
        ["", "### Settings", "", *settings, "", "### Limits", "",
         "Sizes in bytes, times in seconds. `GET /v1/limits` shows the values in force.", "",
         *limits, "", ""]
    )  # fmt: skip
