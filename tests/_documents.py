"""Documents of the repository, and the parts of them that tests check: links, anchors, fenced blocks."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(
    r"(?:^<!-- snippet: (?P<setup>[\w-]+)[^>]*-->\n)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


class Fence(NamedTuple):
    """A fenced block."""

    document: Path
    line: int
    """Line of its first line of text."""
    language: str
    text: str
    setup: str
    """Word of a comment `<!-- snippet: WORD -->` above it, or ""."""

    @property
    def name(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def fences(document: Path) -> Iterator[Fence]:
    """Yield the fenced blocks of a document, without the indentation of an enclosing list."""
    text = document.read_text()
    for match in _FENCE.finditer(text):
        body = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start("text")) + 1
        yield Fence(document, line, match["language"], body, match["setup"] or "")


def prose(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", document.read_text())


def links(document: Path) -> list[str]:
    """Return the targets of a document's links and images, except web addresses."""
    text = re.sub(r"`[^`\n]*`", "", prose(document))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as the site and code hosts make them."""
    found: Counter[str] = Counter()
    names = set(re.findall(r"^::: ([\w.]+)$", document.read_text(), re.MULTILINE))
    for title in re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE):
        words = unicodedata.normalize("NFKD", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title))
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", words.encode("ascii", "ignore").decode()).strip().lower())
        names.add(f"{slug}_{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names
