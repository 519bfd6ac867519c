"""Datasets: published tables of clips and latents, raw videos, and their rows as training and evaluation read them."""

from videogen.data.datasets.clips_schema import CLIPS
from videogen.data.datasets.latents_schema import LATENTS
from videogen.data.tables import PublishedTable

__all__ = ["KINDS", "open_table"]

KINDS = (CLIPS, LATENTS)
"""All kinds of tables."""


def open_table(uri: str, what: str = "Table") -> PublishedTable:
    """Open a published table of any kind.

    Args:
        uri: its folder.
        what: names the table in error messages.

    Raises:
        UserError: there is no such table, this release does not read its schema version, or its manifest is damaged.
    """
    return PublishedTable.open(uri, what, KINDS)
