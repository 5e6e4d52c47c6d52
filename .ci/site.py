"""
An event hook of mkdocs that makes links absolute and adds the messages of the code.

Only links to files outside docs/ become absolute, because the site does not have these files. The
page of errors gets every message that the code can raise, read from the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "airflow_provider_lakets"
# A SQL literal, or several that follow each other on lines of their own.
TEXT = r"((?:'(?:[^']|'')*'\s*)+)"
REFUSAL = re.compile(rf"RAISE EXCEPTION\s+{TEXT}([^;]*?);", re.DOTALL)
HINT = re.compile(rf"HINT\s*=\s*(?:format\()?{TEXT}", re.DOTALL)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Return a page with its links made absolute, and the messages in their place."""
    if page.file.src_uri == "troubleshooting.md":
        markdown = markdown.replace("<!-- engine -->", table(engine_messages()))
        markdown = markdown.replace("<!-- provider -->", table(provider_messages()))
    return re.sub(r"\]\(\.\./(?!reference/)([^)]*)\)", rf"]({config.repo_url}/blob/main/\1)", markdown)


def table(rows: Iterator[tuple[str, str]]) -> str:
    """Return rows as a table of Markdown, sorted, each once."""
    cells = sorted({tuple(cell.replace("|", "\\|") for cell in row) for row in rows})
    return "\n".join(["| message | |", "|---|---|", *(f"| {message} | {more} |" for message, more in cells)])


def engine_messages() -> Iterator[tuple[str, str]]:
    """Yield the message and hint of each refusal in the SQL modules; ``…`` replaces variables."""
    for module in sorted((ROOT / "sql").glob("*.sql")):
        for message, using in REFUSAL.findall(module.read_text()):
            hint = HINT.search(using)
            yield literal(message), literal(hint[1]) if hint else ""


def literal(text: str) -> str:
    """Return adjacent SQL literals as one text."""
    joined = "".join(part.replace("''", "'") for part in re.findall(r"'((?:[^']|'')*)'", text))
    return re.sub(r"%%|%\d*\$?[sILU]|%", lambda found: "%" if found[0] == "%%" else "…", joined)


def provider_messages() -> Iterator[tuple[str, str]]:
    """Yield each message of our own exceptions, with the class that is raised."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            raised = node.exc.func.id if isinstance(node.exc.func, ast.Name) else ""
            message = text_of(node.exc.args[0])
            if re.match(r"Lake(base|TS)\w*Error$", raised) and len(message) > 2:
                yield message, f"`{raised}`"


def text_of(node: ast.expr) -> str:
    """Return the text of a string in the code; ``…`` replaces variables."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "…"
