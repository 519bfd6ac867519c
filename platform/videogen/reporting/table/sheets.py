"""Contact sheets: the thumbnails of the rows that stand for what is kept, and for what each rule drops."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from videogen import storage
from videogen.data.datasets.finished import FinishedTable
from videogen.data.tables.shard_reading import read_shard

THUMBNAIL = "thumbnail"
_SHOWN = ("clip_id", "path", "source", "start_s", "end_s", "width", "height", "caption", "duplicate_of")
"""Columns that say what a picture shows, beside the scores."""
Place = tuple[int, int]
"""Shard and row in it."""


@dataclass(frozen=True)
class Picture:
    """One clip of a contact sheet."""

    place: Place
    row: Mapping[str, Any]
    """What the index says of it."""
    jpeg: bytes
    """First, middle and last frame side by side."""


def read_pictures(table: FinishedTable, places: Iterable[Place]) -> dict[Place, Picture]:
    """Return the clips at these places that have a thumbnail; of every row group only that column is read."""
    places = sorted(places)
    if not places or THUMBNAIL not in table.shard_schema.names:
        return {}
    jpegs = _read_thumbnails(table, places)
    rows = _read_rows(table, [place for place in places if jpegs.get(place)])
    return {place: Picture(place, row, jpegs[place]) for place, row in rows.items()}


def _read_thumbnails(table: FinishedTable, places: list[Place]) -> dict[Place, bytes]:
    groups: dict[Place, list[int]] = defaultdict(list)
    for shard, row in places:
        groups[shard, row // table.shards[shard].rows_per_group].append(row)
    found: dict[Place, bytes] = {}
    for (shard, group), rows in groups.items():
        start = group * table.shards[shard].rows_per_group
        column = _read_group(storage.join(table.uri, table.shards[shard].name), group)
        found |= {(shard, row): column[row - start].as_py() for row in rows}
    return found


def _read_group(uri: str, group: int) -> Any:
    import pyarrow.parquet as pq

    def read() -> Any:
        filesystem, path = storage.arrow_filesystem(uri)
        with filesystem.open_input_file(path) as file:
            return pq.ParquetFile(file).read_row_group(group, columns=[THUMBNAIL])[THUMBNAIL]

    return read_shard(uri, read)


def _read_rows(table: FinishedTable, places: list[Place]) -> dict[Place, Mapping[str, Any]]:
    """Return what the index says of some rows."""
    if not places:
        return {}
    by_shard: dict[int, list[int]] = defaultdict(list)
    for shard, row in places:
        by_shard[shard].append(row)
    terms = [f'(shard = {shard} AND "row" IN ({", ".join(map(str, rows))}))' for shard, rows in by_shard.items()]
    wanted = {*_SHOWN, *table.manifest.get("scores", ()), "shard", "row"}
    columns = [name for name in table.index_schema.names if name in wanted]
    return {
        (row["shard"], row["row"]): row
        for batch in table.index(columns, " OR ".join(terms))
        for row in batch.to_pylist()
    }


def read_originals(table: FinishedTable, clip_ids: Iterable[str]) -> dict[str, Picture]:
    """Return clips by their id, as far as they have a thumbnail; "" is no id."""
    wanted = sorted(set(clip_ids) - {""})
    if not wanted:
        return {}
    quoted = ", ".join("'{}'".format(one.replace("'", "''")) for one in wanted)
    places = [
        (row["shard"], row["row"])
        for batch in table.index(["shard", "row"], f"clip_id IN ({quoted})")
        for row in batch.to_pylist()
    ]
    return {picture.row["clip_id"]: picture for picture in read_pictures(table, places).values()}
