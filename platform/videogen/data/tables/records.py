"""Records of work items, parts and shards: plain values that can be pickled and are stored as JSON in file footers.

A *work item* is planned, processed and retried as a whole, and ends in exactly one status. Workers process items in
batches; the file that a worker commits for a batch is a *part*. Compaction packs parts into *shards*, which readers
open.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import pyarrow as pa

from videogen.hashing import json_hash

OK, FILTERED, FAILED = "ok", "filtered", "failed"
STATUSES = (OK, FILTERED, FAILED)
"""Final statuses of an item, best first: if an item has several outcomes, the first status in this order counts."""

ITEM_ID = "item_id"
"""Column of every data file: the item that a row belongs to."""

ATTEMPTS_BEFORE = "attempts_before"
"""Column of items that are retried: number of failed attempts so far."""

SHARD, ROW = "shard", "row"
"""Last two columns of an index: position of the shard in the manifest, and row in that shard."""

ERRORS_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        ("uri", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("log_tail", pa.string()),
    ]
)
"""Columns of errors.parquet and filtered.parquet, which list items and the reason for their status."""


@dataclass(frozen=True)
class Outcome:
    """Final status of one work item."""

    item_id: str
    status: str
    """One of `STATUSES`."""
    rows: int = 0
    """Number of rows of the item. `write_part` counts them, so callers may leave 0."""
    uri: str = ""
    """Source of the item, as listed in errors.parquet."""
    stage: str = ""
    """Processing step that failed or filtered the item, e.g. "probe"."""
    error: str = ""
    """Reason, in a few words."""
    attempts: int = 1
    """Number of attempts over all runs; every run that retries an item adds at least one."""
    log_tail: str = ""
    """Last lines of output of a child process that died."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"item {self.item_id!r} has the status {self.status!r}: it must be one of {STATUSES}")

    def with_prior_attempts(self, item: Mapping[str, Any]) -> Self:
        """Return the outcome with the attempts of earlier runs added, so that the latest failure has the most.

        Args:
            item: a row of `Ledger.pending`; without `attempts_before`, the outcome is returned unchanged.
        """
        before = item.get(ATTEMPTS_BEFORE)
        return self if before is None else replace(self, attempts=before + max(1, self.attempts))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value != _DEFAULTS.get(key)}


_DEFAULTS = {item.name: item.default for item in fields(Outcome)}


@dataclass(frozen=True)
class PartRecord:
    """Content of a part, as stored in its footer: everything that the driver needs to know about it."""

    batch_id: str
    """Hash of the identity and of the items of the batch."""
    identity: str
    """Hash of all settings that determine the rows of an item; records of other identities are ignored."""
    rows: int
    num_bytes: int
    """Size of the file."""
    outcomes: tuple[Outcome, ...]
    """In the order of the rows: the rows of the first outcome come first."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Measurements of the batch, e.g. seconds of computation; `Ledger.metrics` sums them."""

    @property
    def name(self) -> str:
        """File name without suffix.

        The name contains a hash of the outcomes. A retry of the same batch, or a worker that outlives its driver,
        therefore writes identical content or a new file; it never overwrites rows with a failure.
        """
        return f"{self.batch_id}-{json_hash([[item.item_id, item.status, item.rows] for item in self.outcomes])[:8]}"

    def to_json(self) -> str:
        """Return the record as JSON, for a footer or a column."""
        values = {_STORED_NAMES.get(name, name): value for name, value in vars(self).items()}
        outcomes = [item.as_dict() for item in self.outcomes]
        return json.dumps({**values, "facts": dict(self.metrics), "outcomes": outcomes})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the output of `to_json`."""
        values = json.loads(text)
        for name, stored in _STORED_NAMES.items():
            values[name] = values.pop(stored)
        return cls(**{**values, "outcomes": tuple(Outcome(**item) for item in values["outcomes"])})


_STORED_NAMES = {"batch_id": "unit_id", "metrics": "facts"}
"""Fields of `PartRecord` whose name in files is another one; existing tables use it."""


@dataclass(frozen=True)
class Pack:
    """Parts that are compacted into one shard, in this order."""

    parts: tuple[str, ...]
    """Names of the parts."""
    part_rows: tuple[int, ...]
    num_bytes: int
    """Total size of the parts, approximately the size of the shard."""
    identity: str

    @property
    def name(self) -> str:
        """Path of the shard in its table, e.g. "shards/0123456789abcdef0123.parquet": a hash of the parts' names."""
        return f"shards/{json_hash(self.parts)}.parquet"


@dataclass(frozen=True)
class ShardRecord:
    """Content of a shard, as stored in its footer."""

    name: str
    """Path in the table."""
    identity: str
    rows: int
    num_bytes: int
    parts: tuple[str, ...]
    """Parts that were packed into it, in the order of its rows."""
    part_rows: tuple[int, ...]
    rows_per_group: int
    """Rows of every row group except the last, so row i is in group i // rows_per_group."""

    def as_manifest(self) -> dict[str, Any]:
        """Return the shard's entry in the manifest."""
        return {"name": self.name, "rows": self.rows, "bytes": self.num_bytes, "rows_per_group": self.rows_per_group}
