"""Transactional parquet tables: plan work items, commit parts, publish snapshots, read them.

| file | subject |
|---|---|
| ledger.py | facade for the driver of a run: what is planned, done, and published |
| plan.py | planned work items in canonical order |
| data_files.py | parts that workers commit, compaction of parts into shards |
| commit_log.py, outcomes.py | record of committed parts; which outcome of an item counts |
| index.py | location of rows, writing and reading of the index |
| manifest.py | published snapshots: kinds, validation, atomic replacement |
| read.py | published tables for readers, with retries and detection of damage |
| query.py | SQL conditions over the columns of a table |
| lease.py | one writer per table |
| vacuum.py | removal of unreferenced files after a retention period |
| spill_database.py | local database for sets that do not fit in memory |
| files.py | folders and names, footers, records |

The package depends only on `videogen.storage` and the small modules below it. It knows items by id and rows as Arrow
tables; the columns and manifest sections of a kind of table are defined by its writers and readers
(`TableKind`).
"""

from videogen.data.tables.data_files import pack_shard, read_part_record, write_part
from videogen.data.tables.files import (
    ATTEMPTS_BEFORE,
    ERRORS_NAME,
    ERRORS_SCHEMA,
    FAILED,
    FILTERED,
    ITEM_ID,
    MANIFEST_NAME,
    OK,
    STATUSES,
    ForeignFileError,
    Outcome,
    Pack,
    PartRecord,
    ShardRecord,
)
from videogen.data.tables.index import index_schema, read_index, require_index, write_index
from videogen.data.tables.lease import Lease
from videogen.data.tables.ledger import Ledger
from videogen.data.tables.manifest import ManifestSection, TableKind, TableManifest, kind_of, read_manifest
from videogen.data.tables.query import Conditions, check_expression, conjunction, select
from videogen.data.tables.read import PublishedTable, Row, Shard, ShardReadError, read_shard
from videogen.data.tables.spill_database import MEMORY_MB
from videogen.data.tables.vacuum import vacuum_table

__all__ = [
    "ATTEMPTS_BEFORE",
    "ERRORS_NAME",
    "ERRORS_SCHEMA",
    "FAILED",
    "FILTERED",
    "ITEM_ID",
    "MANIFEST_NAME",
    "MEMORY_MB",
    "OK",
    "STATUSES",
    "Conditions",
    "ForeignFileError",
    "Lease",
    "Ledger",
    "ManifestSection",
    "Outcome",
    "Pack",
    "PartRecord",
    "PublishedTable",
    "Row",
    "Shard",
    "ShardReadError",
    "ShardRecord",
    "TableKind",
    "TableManifest",
    "check_expression",
    "conjunction",
    "index_schema",
    "kind_of",
    "pack_shard",
    "read_index",
    "read_manifest",
    "read_part_record",
    "read_shard",
    "require_index",
    "select",
    "vacuum_table",
    "write_index",
    "write_part",
]
