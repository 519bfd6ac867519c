"""List of the generated pages."""

from pathlib import Path

from tools.reference import configuration, environment, http_api, jobs, python_api, results, tables

ROOT = Path(__file__).resolve().parents[2]


def render_pages() -> dict[str, str]:
    """Return the text of every generated page by its path in the repository."""
    return {
        "docs/reference/jobs.md": jobs.render(),
        "docs/reference/configuration.md": configuration.render(),
        "docs/reference/tables.md": tables.render(),
        "docs/reference/http-api.md": http_api.render(),
        "docs/reference/python-api.md": python_api.render(),
        "docs/reference/environment.md": environment.render(ROOT),
        "docs/reference/benchmarks.md": results.render(ROOT / "benchmarks" / "results"),
    }
