"""Result files of benchmarks: one JSON file a run in benchmarks/results/, with commit, date, machine and figures.

Figures are tables (lists of rows, each a mapping of column to value) and single values. A value that was measured
several times is `spread(values)`. The newest file of each benchmark becomes a section of docs/reference/benchmarks.md.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.reference.markdown import escape, table

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
FIELDS = ("benchmark", "command", "commit", "date", "machine", "versions", "figures", "note")
"""Keys of a result file. What is not known of an old run is null."""
_PACKAGES = ("torch", "ray", "pyarrow", "duckdb", "diffusers", "deepspeed", "decord")


def add_save_option(arguments: argparse.ArgumentParser) -> None:
    """Add `--save` and `--note`."""
    arguments.add_argument("--save", action="store_true", help="write a file to benchmarks/results/")
    arguments.add_argument("--note", default="", help="remark that is saved with the figures")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return median, least and most of repeated measurements, rounded."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def save_result(benchmark: str, figures: Mapping[str, Any], note: str = "", folder: Path = RESULTS) -> Path:
    """Write the result of a run that has just ended; return its file.

    Args:
        benchmark: its name; the section of the page.
        figures: JSON values by name.
        note: remark for the reader, e.g. what else ran.
        folder: where result files are.
    """
    now = datetime.now(UTC)
    result = {
        "benchmark": benchmark,
        "command": shlex.join(["python", *sys.argv]) if sys.argv else None,
        "commit": _commit(),
        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": _versions(),
        "figures": dict(figures),
        "note": note,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}-{now:%Y-%m-%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def report(benchmark: str, figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print the figures of a run as Markdown, and save them if `--save` says so."""
    print(render_figures(figures))
    if options.save:
        path = save_result(benchmark, figures, options.note)
        print(f"\n{path}: run `make reference` to show it in the documentation")


def render_figures(figures: Mapping[str, Any]) -> str:
    """Return single values as one table, then every table under its title, as Markdown."""
    blocks = []
    if single := {key: value for key, value in figures.items() if not isinstance(value, list)}:
        blocks.append(table(("figure", "value"), [(_words(key), _cell(value)) for key, value in single.items()]))
    for title, rows in figures.items():
        if isinstance(rows, list):
            blocks += [f"**{_words(title).capitalize()}**", render_rows(rows)]
    return "\n\n".join(blocks)


def render_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one table of figures as Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    return table([_words(column) for column in columns], cells)


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return f"{value['median']:g} ({value['least']:g} to {value['most']:g})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else escape(str(value))


def load_results(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each benchmark, from the oldest to the newest; each with the name of its `file`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        result = {**json.loads(path.read_text()), "file": path.name}
        found.setdefault(result["benchmark"], []).append(result)
    for results in found.values():
        results.sort(key=lambda result: (result["date"] or "", result["file"]))
    return found


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": names[0] if names else platform.processor() or None,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "os": platform.platform(),
    }


def _commit() -> str | None:
    """Return the commit that is checked out, with a mark if files were changed since."""
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    described = subprocess.run(command, check=False, capture_output=True, text=True)
    return described.stdout.strip() or None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
