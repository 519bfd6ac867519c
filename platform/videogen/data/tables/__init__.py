"""Tables: what is done, exactly once, and how readers find it. Items are ids, rows are Arrow tables.

ledger.py    what is done and what is left, for the driver       parts.py     one unit of work, for workers
journal.py   what is on record of units, for the ledger          packing.py   parts to shards, for workers
index.py     one row a live row, for readers                     query.py     SQL conditions on an index
lease.py     one writer a table                                  published.py what readers see, replaced in one step
garbage.py   what nobody needs any more
"""

from videogen.data.tables.garbage import vacuum
from videogen.data.tables.index import index_schema, read_index, write_index
from videogen.data.tables.lease import Lease
from videogen.data.tables.ledger import Ledger
from videogen.data.tables.packing import pack_shard
from videogen.data.tables.parts import read_part_record, write_part
from videogen.data.tables.query import Conditions, check_expression, select
from videogen.data.tables.records import FAILED, FILTERED, OK, STATUSES, Outcome, Pack, PartRecord, ShardRecord

__all__ = [
    "FAILED",
    "FILTERED",
    "OK",
    "STATUSES",
    "Conditions",
    "Lease",
    "Ledger",
    "Outcome",
    "Pack",
    "PartRecord",
    "ShardRecord",
    "check_expression",
    "index_schema",
    "pack_shard",
    "read_index",
    "read_part_record",
    "select",
    "vacuum",
    "write_index",
    "write_part",
]
