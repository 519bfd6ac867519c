"""Writing a table's report, in a way that cannot harm the run that ends with it."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from videogen import storage
from videogen.data.datasets.finished import FinishedTable
from videogen.data.tables.run_log import run_names
from videogen.hashing import content_hash

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

PAGE_NAME, NUMBERS_NAME = "report/index.html", "report/report.json"
_VERSION = 1
"""Raised when the page changes, so that tables get the new one at their next run."""


def write_report(uri: str, load_autoencoder: "Callable[[], AutoencoderKL] | None" = None) -> bool:
    """Write the report of a finished table, unless the one that is there tells of the same table and the same runs.

    Never raises: what goes wrong is logged, and a section that cannot be made is left out.

    Args:
        uri: folder of the table.
        load_autoencoder: of a table of latents: returns the VAE that made them, for the round trips; None leaves these
            out.

    Returns:
        Whether a page was written.
    """
    started = time.monotonic()
    try:
        table = FinishedTable.open(uri)
        made_from = content_hash(_VERSION, table.manifest, run_names(table.uri))
        if _made_from(table.uri) == made_from:
            return False
        _write(table, made_from, load_autoencoder)
    except Exception as error:
        # The table is finished and right, with a page about it or without.
        logger.warning("no report about %s: %s", uri, _line(error), exc_info=logger.isEnabledFor(logging.DEBUG))
        return False
    logger.info("report of %s in %.1f s", uri, time.monotonic() - started)
    return True


def _write(table: FinishedTable, made_from: str, load_autoencoder: "Callable[[], AutoencoderKL] | None") -> None:
    from videogen.reporting.table.contents import gather
    from videogen.reporting.table.page import render

    contents = gather(table, load_autoencoder)
    storage.write_text(storage.join(table.uri, PAGE_NAME), render(contents))
    # Last, as it says that the page is there.
    numbers = {"made_from": made_from, **contents.numbers()}
    storage.write_text(storage.join(table.uri, NUMBERS_NAME), json.dumps(numbers, allow_nan=False) + "\n")


def _made_from(uri: str) -> Any:
    """Return what the report that is there says it was made from; None without one."""
    if not all(storage.exists(storage.join(uri, name)) for name in (PAGE_NAME, NUMBERS_NAME)):
        return None
    try:
        numbers = storage.read_json(storage.join(uri, NUMBERS_NAME))
    except ValueError:  # not JSON
        return None
    return numbers.get("made_from") if isinstance(numbers, Mapping) else None


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
