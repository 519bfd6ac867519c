"""Reference of benchmark results: the newest result file of each benchmark, as tables.

A hand-written page shows a table of the newest result between two comments:

    <!-- figures: BENCHMARK TABLE -->
    <!-- end of figures -->
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.reference.markdown import code, escape, page
from tools.result_files import load_results, render_figures, render_rows

_INTRODUCTION = """
The newest result of each benchmark, from `benchmarks/results/`. Absolute speeds depend on the machine; ratios compare
contenders of one run. `0.96 (0.89 to 1.03)` is the median with the least and the greatest value.
"""

DESCRIPTIONS = {
    "train_step": "Step of a training through the platform (Ray Train, DeepSpeed, loader, logging) beside a step of a "
    "bare PyTorch loop on the same data with the same losses. The aim is a ratio of at most 1.05.",
    "encode": "Throughput of encoding over the bound that its kernels allow: cores divided by the core seconds of "
    "decoding and encoding a clip. Three VAEs: the smallest possible, one as expensive as decoding, and the one of the "
    "`tiny` preset. The aim is a ratio of at least 0.92.",
    "encode_peers": "Throughput of encoding beside a plain loop, a torch DataLoader, Ray Data and Daft on the same "
    "clips with the same VAE. The latents are compared.",
    "encode_plain_loop": "Single repeats of the pipeline beside the plain loop alone.",
    "ledger": "Time and peak memory of each phase of a table's ledger as the number of work items grows. Each phase is "
    "a process of its own. Time should grow linearly, memory should stay flat.",
    "listing": "Time and peak memory of listing a corpus as it grows, from a folder and from a manifest.",
    "loader": "Throughput of the training loader beside MosaicML Streaming and WebDataset on the same clips.",
    "scale": "Extrapolated cost of a large corpus on a cluster, and simulations that check the scheduling part of the "
    "model. [Scale](../explanation/scale.md) explains model and limits.",
    "table_formats": "Our tables beside Lance and Delta: [the decision](../explanation/decisions/table-formats.md).",
    "chaos": "Campaigns of `make chaos`: kills, damaged files, faulty S3, dying nodes.",
    "dedup": "Time and peak memory of finding near duplicates when a clips table is published.",
    "demo": "Quality of the models that `make demo` trains, on held-out prompts and clips, and its duration. "
    "Targets: colour 95 %, shape 85 %, direction 90 %, smoothness 0.8 (1: even steps), 15 minutes on 2 cores.",
    "chaos_kills": "Ingest and encode of a corpus with damaged videos while processes are killed.",
    "chaos_nodes": "Ingest and encode while nodes of the cluster die.",
    "chaos_s3": "Ingest and encode through a proxy that damages S3 requests.",
    "tiny_settings": "Single trainings that chose settings of the `tiny` preset.",
    "process_settings": "Settings of worker processes and what they are worth.",
    "tests": "Duration of the test commands.",
}
"""Benchmarks in the order of the page; those that are not listed follow."""


def render(folder: Path) -> str:
    """Return the page."""
    results = load_results(folder)
    names = [*DESCRIPTIONS, *sorted(set(results) - set(DESCRIPTIONS))]
    sections = [_section(name, results[name]) for name in names if name in results]
    return page("Benchmark results", _INTRODUCTION, *sections)


def _section(name: str, results: list[dict[str, Any]]) -> str:
    newest = results[-1]
    blocks = [f"## {name}", DESCRIPTIONS.get(name, "")]
    if newest["command"]:
        # Not marked as shell: a command of an older commit need not exist any more.
        blocks.append(f"```text\n{newest['command']}\n```")
    blocks.append(_origin(newest))
    blocks.append(render_figures(newest["figures"]))
    if newest["note"]:
        blocks.append(escape(newest["note"]))
    if older := [code(result["file"]) for result in reversed(results[:-1])]:
        blocks.append(f"Older results in `benchmarks/results/`: {', '.join(older)}.")
    return "\n\n".join(filter(None, blocks))


def _origin(result: Mapping[str, Any]) -> str:
    """Return the known ones of date, commit and machine."""
    machine = result["machine"] or {}
    parts = [(result["date"] or "Date not recorded").partition("T")[0]]
    if result["commit"]:
        parts.append(f"commit {code(result['commit'])}")
    if machine.get("cpu"):
        parts.append(f"{machine['cores']} cores of {escape(machine['cpu'])}")
    if machine.get("memory_gb"):
        parts.append(f"{machine['memory_gb']} GB of memory")
    return "; ".join(parts) + "."


_MARKED = re.compile(r"(<!-- figures: (\w+) (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def fill_tables(text: str, folder: Path) -> str:
    """Return a hand-written page with the newest figures between its marks."""
    results = load_results(folder)

    def filled(match: re.Match[str]) -> str:
        rows = results[match[2]][-1]["figures"][match[3]]
        return f"{match[1]}\n{render_rows(rows)}\n\n{match[4]}"

    return _MARKED.sub(filled, text)
