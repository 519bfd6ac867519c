"""Report writer that never fails the run that calls it, and writes only when the table or its runs have changed."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from videogen import storage
from videogen.data.datasets import open_table
from videogen.data.tables import PublishedTable
from videogen.hashing import content_hash
from videogen.reporting.run_log import run_names

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

PAGE_NAME, NUMBERS_NAME = "report/index.html", "report/report.json"
_VERSION = 2
"""Version of the page; raise it to have reports rewritten at the next run of a table."""


def write_report(uri: str, load_autoencoder: "Callable[[], AutoencoderKL] | None" = None) -> bool:
    """Write the report of a finished table, unless an up-to-date report exists.

    Never raises: errors are logged, and a section that fails is left out.

    Args:
        uri: folder of the table.
        load_autoencoder: returns the VAE of a table of latents, for the reconstructions; None leaves these out.

    Returns:
        Whether a page was written.
    """
    started = time.monotonic()
    try:
        table = open_table(uri)
        made_from = content_hash(_VERSION, table.manifest, run_names(table.uri))
        if _made_from(table.uri) == made_from:
            return False
        _write(table, made_from, load_autoencoder)
    except Exception as error:
        # The table itself is finished and valid without a report.
        logger.warning("no report about %s: %s", uri, _line(error), exc_info=logger.isEnabledFor(logging.DEBUG))
        return False
    logger.info("report of %s in %.1f s", uri, time.monotonic() - started)
    return True


def _write(table: PublishedTable, made_from: str, load_autoencoder: "Callable[[], AutoencoderKL] | None") -> None:
    from videogen.reporting.table.contents import gather
    from videogen.reporting.table.page import render

    contents = gather(table, load_autoencoder)
    storage.write_text(storage.join(table.uri, PAGE_NAME), render(contents))
    # Written last: its fingerprint marks the page as complete.
    numbers = {"made_from": made_from, **contents.numbers()}
    storage.write_text(storage.join(table.uri, NUMBERS_NAME), json.dumps(numbers, allow_nan=False) + "\n")


def _made_from(uri: str) -> Any:
    """Return the fingerprint in the existing report; None without one."""
    if not all(storage.exists(storage.join(uri, name)) for name in (PAGE_NAME, NUMBERS_NAME)):
        return None
    try:
        numbers = storage.read_json(storage.join(uri, NUMBERS_NAME))
    except ValueError:  # not JSON
        return None
    return numbers.get("made_from") if isinstance(numbers, Mapping) else None


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
