"""`make docs`: write the generated pages anew and check every link between the documents.

Generated from the code: `docs/errors.md`, the table of result codes in `docs/ledger.md`, the
tables of `docs/ledger-tables.md` and of `docs/operations.md`; from the CRDs:
`docs/kubernetes/fields.md`.
Links to other sites are not looked at: the check needs no network and gives the same answer
every time.
"""

import re
import sys
from pathlib import Path

from fields import page as fields_page
from settings import tables as settings_tables

from ultraengine.domains.ledger.codes import codes_markdown
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.edge.problems import errors_page
from ultraengine.projection.documents import tables_markdown

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"^\| `status` \|.*?(?=^$|\Z)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
GENERATED = re.compile(r"(<!-- generated: tables -->\n).*(<!-- end -->)", re.DOTALL)
SETTINGS = re.compile(r"(<!-- generated: settings -->\n).*(<!-- end -->)", re.DOTALL)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")


def write(path: Path, text: str) -> None:
    """Write a page if it changed, and say so."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(f"docs: wrote {path.relative_to(ROOT)}")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {word.replace(" ", "-") for word in words}


def broken_links() -> list[str]:
    """Links to files or headings that are not there."""
    broken = []
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in sorted(pages):
        # A pattern in code may look like a link; the text of a link may be code.
        for target in LINK.findall(CODE.sub("code", FENCE.sub("", page.read_text()))):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            known = path.suffix != ".md" or not anchor or anchor in anchors(path.read_text())
            if not path.exists() or not known:
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    return broken


def main() -> int:
    """Write, check, report."""
    write(ROOT / "docs" / "errors.md", errors_page())
    ledger = ROOT / "docs" / "ledger.md"
    table = f"{codes_markdown()}\n"
    write(ledger, TABLE.sub(lambda _: table, ledger.read_text(), count=1))
    page = ROOT / "docs" / "ledger-tables.md"
    text = GENERATED.sub(lambda m: f"{m[1]}{tables_markdown(TABLES)}{m[2]}", page.read_text())
    write(page, text)
    page = ROOT / "docs" / "operations.md"
    write(page, SETTINGS.sub(lambda m: f"{m[1]}{settings_tables()}{m[2]}", page.read_text()))
    write(ROOT / "docs" / "kubernetes" / "fields.md", fields_page())
    broken = broken_links()
    for link in broken:
        print(f"docs: broken link: {link}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
