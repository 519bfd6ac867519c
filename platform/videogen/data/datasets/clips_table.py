"""Reader of clips tables: analysis settings, captions, and the clips that the policy keeps."""

from dataclasses import fields
from functools import cached_property

import pyarrow as pa

from videogen.data.datasets.clips import Clip
from videogen.data.datasets.clips_schema import CLIPS, IngestSpec, clips_index_schema
from videogen.data.tables import PublishedTable

KEPT = "dropped_by = ''"
"""Condition for the clips that the policy keeps."""


class ClipsTable(PublishedTable):
    """A published clips table."""

    kinds = (CLIPS,)
    label = "Clips table"

    @property
    def spec(self) -> IngestSpec:
        """Settings that the clips were made with."""
        known = {field.name for field in fields(IngestSpec)}
        values = {name: value for name, value in self.manifest["spec"].items() if name in known}
        return IngestSpec(**{**values, "scores": tuple(values["scores"])})

    @cached_property
    def index_schema(self) -> pa.Schema:
        """Columns of the index, which conditions may use; known from the manifest, even if the table has no rows."""
        return clips_index_schema(self.manifest["scores"])

    @property
    def has_captions(self) -> bool:
        """Whether any clip has a caption."""
        return bool(self.manifest["has_captions"])

    def kept_clips(self) -> list[Clip]:
        """Return the clips that the policy keeps."""
        names = ["clip_id", "source", "frame_indices", "fps", "width", "height", "caption"]
        rows = (row for batch in self.batches(names, KEPT) for row in batch.to_pylist())
        return [Clip(**{**row, "frame_indices": tuple(row["frame_indices"])}) for row in rows]
