"""List of the generated pages."""

from pathlib import Path

from tools.reference import configuration, environment, http_api, jobs, python_api, results, tables

ROOT = Path(__file__).resolve().parents[2]
_MARK = "<!-- figures: "


def render_pages() -> dict[str, str]:
    """Return the text of every generated page, and of every page with generated tables, by its path."""
    results_folder = ROOT / "benchmarks" / "results"
    generated = {
        "docs/reference/jobs.md": jobs.render(),
        "docs/reference/configuration.md": configuration.render(),
        "docs/reference/tables.md": tables.render(),
        "docs/reference/http-api.md": http_api.render(),
        "docs/reference/python-api.md": python_api.render(),
        "docs/reference/environment.md": environment.render(ROOT),
        "docs/reference/benchmarks.md": results.render(results_folder),
    }
    written = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
    filled = {name: results.fill_tables(text, results_folder) for name, text in written.items() if _MARK in text}
    return generated | filled
