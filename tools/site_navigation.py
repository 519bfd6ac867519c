"""Navigation of the documentation site, from the folders of docs/: an MkDocs hook.

Tutorials, how-to guides, reference and explanation are one tab each. `index.md` of a folder comes first, then the pages
named in `_ORDER`, then all others by file name; a page needs no entry anywhere to appear.
"""

from pathlib import Path
from typing import Any

_TABS = {
    "Tutorials": "tutorials",
    "How-to guides": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
}
_ORDER = {
    "tutorials": ("first-run", "own-model"),
    "how-to": (
        "curate",
        "encode",
        "train",
        "generate-in-batch",
        "serve",
        "resume",
        "run-on-a-cluster",
        "use-cloud-storage",
        "import-and-export",
        "inspect-and-vacuum",
        "find-out-why-a-run-failed",
    ),
    "reference": ("jobs", "configuration", "tables", "http-api", "python-api", "environment", "benchmarks"),
    "explanation": ("architecture", "guarantees", "scale"),
}


def on_config(config: Any) -> Any:
    """Set the navigation of an MkDocs configuration."""
    docs = Path(config["docs_dir"])
    tabs = [{title: pages(docs, folder)} for title, folder in _TABS.items() if (docs / folder).is_dir()]
    config["nav"] = [{"Home": "index.md"}, *tabs]
    return config


def pages(docs: Path, folder: str) -> list[Any]:
    """Return the entries of a folder: its pages, then its sub-folders as sections of their own."""
    order = ["index", *_ORDER.get(folder, ())]
    files = sorted((docs / folder).glob("*.md"), key=lambda path: (_place(path.stem, order), path.name))
    sections = sorted(path for path in (docs / folder).iterdir() if path.is_dir() and any(path.glob("*.md")))
    return [
        *(path.relative_to(docs).as_posix() for path in files),
        *({path.name.replace("-", " ").capitalize(): pages(docs, f"{folder}/{path.name}")} for path in sections),
    ]


def _place(stem: str, order: list[str]) -> int:
    return order.index(stem) if stem in order else len(order)
