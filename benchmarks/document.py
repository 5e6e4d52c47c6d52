"""Write measured figures into the documentation."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
END = "<!-- end -->"


def fill(name: str, marker: str, text: str) -> None:
    """
    Replace the text in a document between ``<!-- marker -->`` and ``<!-- end -->``.

    :param name: The document, in docs.
    :param marker: The place in it; a document without the marker stays unchanged.
    :param text: The new text, with a line end.
    """
    document = DOCS / name
    before, begin, rest = document.read_text().partition(f"<!-- {marker} -->\n")
    if begin:
        document.write_text(f"{before}{begin}{text}{END}{rest.partition(END)[2]}")
