"""Navigation of the documentation site, from the folders of docs/: an MkDocs hook.

Tutorials, how-to guides, reference and explanation are one tab each. Pages come in the order in which `index.md` of
their folder links to them; a page needs no entry anywhere else to appear.
"""

import re
from pathlib import Path
from typing import Any

_TABS = {
    "Tutorials": "tutorials",
    "How-to guides": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
}
_ORDER = {"tutorials": ("first-run", "own-model"), "explanation": ("architecture", "guarantees", "scale")}
"""Order of the folders that have no `index.md`."""


def on_config(config: Any) -> Any:
    """Set the navigation of an MkDocs configuration."""
    docs = Path(config["docs_dir"])
    tabs = [{title: pages(docs, folder)} for title, folder in _TABS.items() if (docs / folder).is_dir()]
    config["nav"] = [{"Home": "index.md"}, *tabs]
    return config


def pages(docs: Path, folder: str) -> list[Any]:
    """Return the entries of a folder: its pages, then its sub-folders as sections of their own."""
    index = docs / folder / "index.md"
    linked = re.findall(r"\]\(([\w-]+)\.md\)", index.read_text()) if index.exists() else []
    order = ["index", *linked, *_ORDER.get(folder, ())]
    files = sorted((docs / folder).glob("*.md"), key=lambda path: (_place(path.stem, order), path.name))
    sections = sorted(path for path in (docs / folder).iterdir() if path.is_dir() and any(path.glob("*.md")))
    return [
        *(path.relative_to(docs).as_posix() for path in files),
        *({path.name.replace("-", " ").capitalize(): pages(docs, f"{folder}/{path.name}")} for path in sections),
    ]


def _place(stem: str, order: list[str]) -> int:
    return order.index(stem) if stem in order else len(order)
