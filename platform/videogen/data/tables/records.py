"""What is written down of items, units, parts and shards: plain values that pickle, and travel as JSON in footers.

An *item* (a video, a clip) ends in exactly one status. A *unit* is a group of items that is done as a whole; the file
that a worker writes for it is a *part*. Parts are packed into *shards*, which is what readers read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import pyarrow as pa

from videogen.hashing import json_hash

OK, FILTERED, FAILED = "ok", "filtered", "failed"
STATUSES = (OK, FILTERED, FAILED)
"""How an item can end, best first: where several outcomes of an item are on record, the first of these counts."""

ITEM_ID = "item_id"
"""The column of every data file that says which item a row belongs to."""

ATTEMPTS_BEFORE = "attempts_before"
"""The column of items that are tried again that says how often that was in vain."""

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
"""Columns of errors.parquet and of its kin: how items ended, for people."""


@dataclass(frozen=True)
class Outcome:
    """How one item ended."""

    item_id: str
    status: str
    """One of `STATUSES`."""
    rows: int = 0
    """Rows of the item; may be left 0 when a part is written, they are counted there."""
    uri: str = ""
    """Where the item came from; goes to errors.parquet."""
    stage: str = ""
    """What failed or filtered it, e.g. "probe"."""
    error: str = ""
    """Why, in a few words."""
    attempts: int = 1
    """Of all runs together; a run that tries again counts at least one."""
    log_tail: str = ""
    """The last lines that a dead child process printed."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"item {self.item_id!r} has the status {self.status!r}: it must be one of {STATUSES}")

    def after(self, item: Mapping[str, Any]) -> Self:
        """Return the outcome with the attempts of earlier runs added, so that of several failures the last has most.

        Args:
            item: as `Ledger.pending` gave it; what it does not say counts as nothing.
        """
        before = item.get(ATTEMPTS_BEFORE)
        return self if before is None else replace(self, attempts=before + max(1, self.attempts))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something, as JSON."""
        return {key: value for key, value in asdict(self).items() if value != _DEFAULTS.get(key)}


_DEFAULTS = {item.name: item.default for item in fields(Outcome)}


@dataclass(frozen=True)
class PartRecord:
    """One part as its footer tells it; all that a driver needs to know of it."""

    unit_id: str
    identity: str
    """Hash of all that decides the rows beside the items: records of another identity do not count."""
    rows: int
    num_bytes: int
    """Size of the file."""
    outcomes: tuple[Outcome, ...]
    """In the order of the rows: the rows of the first outcome come first."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Measured while the unit was worked on, e.g. seconds; summed up by `Ledger.facts`."""

    @property
    def name(self) -> str:
        """Name of the file, without suffix.

        It holds a hash of how the items ended: a second attempt at the same unit, or a worker that outlived its
        driver, can only write the same again or something beside it, never replace rows by a failure.
        """
        return f"{self.unit_id}-{json_hash([[item.item_id, item.status, item.rows] for item in self.outcomes])[:8]}"

    def to_json(self) -> str:
        """Return the record as text, for a column of a table or a footer."""
        outcomes = [item.as_dict() for item in self.outcomes]
        return json.dumps({**vars(self), "facts": dict(self.facts), "outcomes": outcomes})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "outcomes": tuple(Outcome(**item) for item in values["outcomes"])})


@dataclass(frozen=True)
class Pack:
    """Parts that make one shard, in this order."""

    parts: tuple[str, ...]
    """Names of parts."""
    part_rows: tuple[int, ...]
    num_bytes: int
    """Size of the parts together, about that of the shard."""
    identity: str

    @property
    def name(self) -> str:
        """Name of the shard in its table, e.g. "shards/0123456789abcdef0123.parquet": a hash of the parts' names."""
        return f"shards/{json_hash(self.parts)}.parquet"


@dataclass(frozen=True)
class ShardRecord:
    """One shard as its footer tells it."""

    name: str
    """Its path in the table."""
    identity: str
    rows: int
    num_bytes: int
    parts: tuple[str, ...]
    """The parts whose rows it holds, in this order."""
    part_rows: tuple[int, ...]
    rows_per_group: int
    """Rows of each row group but the last, so row i is in group i // rows_per_group."""

    def as_manifest(self) -> dict[str, Any]:
        """Return what the manifest says of a shard."""
        return {"name": self.name, "rows": self.rows, "bytes": self.num_bytes, "rows_per_group": self.rows_per_group}
