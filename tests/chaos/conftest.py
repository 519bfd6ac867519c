"""Options and result file of the chaos campaigns: `make chaos` writes benchmarks/results/chaos-*.json."""

import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tools.result_files import save_result

_campaigns = pytest.StashKey[list[dict[str, Any]]]()
_outcome = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the size of the large campaign."""
    parser.addoption("--files", type=int, default=300, help="files of the large damaged corpus (default: 300)")
    parser.addoption("--kills", type=int, default=5, help="processes killed while it is encoded (default: 5)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember the outcome of each test for its row of the result."""
    report = yield
    if report.when == "call":
        item.stash[_outcome] = report.outcome
    return report


@pytest.fixture
def figures() -> dict[str, Any]:
    """Return the mapping to which a campaign adds its figures."""
    return {}


@pytest.fixture(autouse=True)
def _row(request: pytest.FixtureRequest, figures: dict[str, Any]) -> Iterator[None]:
    """Add a row of outcome, duration and figures to the result of this run."""
    started = time.perf_counter()
    yield
    row = {"campaign": request.node.name, "outcome": request.node.stash.get(_outcome, "error")}
    rows = request.config.stash.setdefault(_campaigns, [])
    rows.append({**row, "seconds": round(time.perf_counter() - started), **figures})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the result file, unless nothing ran."""
    if rows := session.config.stash.get(_campaigns, []):
        path = save_result("chaos", {"campaigns": rows})
        print(f"\n{path}")
