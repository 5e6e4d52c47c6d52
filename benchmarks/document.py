"""What is measured, put into the documentation."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
END = "<!-- end -->"


def fill(name: str, marker: str, text: str) -> None:
    """
    Replace what stands in a document between ``<!-- marker -->`` and ``<!-- end -->``.

    :param name: The document, in docs.
    :param marker: Which place in it; a document without it is left alone.
    :param text: What to put there, with a line end.
    """
    document = DOCS / name
    before, begin, rest = document.read_text().partition(f"<!-- {marker} -->\n")
    if begin:
        document.write_text(f"{before}{begin}{text}{END}{rest.partition(END)[2]}")
