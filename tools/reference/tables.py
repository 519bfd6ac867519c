"""Reference of the tables: files and columns, from the schemas and from the descriptions beside them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.generate import manifest, prompts
from tools.reference.markdown import code, escape, page, table
from videogen.data.curation.scores import SCORES
from videogen.data.datasets import columns
from videogen.data.datasets.clips_schema import SCHEMA_VERSION as CLIPS_VERSION
from videogen.data.datasets.clips_schema import clips_index_schema, clips_schema
from videogen.data.datasets.columns import Column
from videogen.data.datasets.latents_schema import SCHEMA_VERSION as LATENTS_VERSION
from videogen.data.datasets.latents_schema import latents_schema
from videogen.data.tables import ERRORS_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

_FILES = """
A table is a folder. Readers open `manifest.json` and nothing that it does not name; it is written last.

| file | content |
|---|---|
| `manifest.json` | kind, schema version, fingerprints, counts, names of all other files |
| `index/*.parquet` | one row for each row of the table: every scalar column, and the shard and row of the rest |
| `shards/*.parquet` | the rows, about 256 MB a file; a shard never changes |
| `errors.parquet` | inputs that failed |
| `filtered.parquet` | clips table: videos that gave no clip on purpose, e.g. too short |
| `history/*.json` | earlier manifests, until `vacuum_table` removes them |
| `report/index.html` | report page |
| `parts/`, `commits/`, `plan/`, `runs/`, `lease.json` | state of runs; not for readers |

An array is three columns: bytes in C order (`NAME`), its shape (`NAME_shape`) and its numpy data type (`NAME_dtype`).
"""


def render() -> str:
    """Return the page."""
    return page(
        "Tables",
        _FILES,
        f"## Clips table\n\nWritten by `ingest`. Schema version {CLIPS_VERSION}. Every column is in the shards; the "
        "index has all but `embedding` and `thumbnail`, and is what SQL conditions (`--keep`, `--where`) may name.",
        _columns(clips_schema(score_names()), columns.CLIPS | score_columns()),
        "The index adds:",
        _columns(added_by_index(), columns.CLIPS_INDEX),
        f"## Table of latents\n\nWritten by `encode_latents`. Schema version {LATENTS_VERSION}. One row a clip. SIZE "
        "is the side of the square latents of a stage, e.g. `latents_16`; a table has every size that its cascade "
        "needs. A clip of another aspect ratio has latents of about as many pixels in its own shape.",
        _columns(latents_scalars(), columns.LATENTS),
        _arrays(),
        "## errors.parquet and filtered.parquet\n\nOne row an input without rows in the table.",
        _columns(ERRORS_SCHEMA, columns.ERRORS),
        "## Prompts table\n\nRead by `generate`: a parquet file or a folder of them. Other columns are ignored.",
        table(
            ("column", "meaning"), [(code(name), escape(one.meaning)) for name, one in prompts.COLUMN_MEANINGS.items()]
        ),
        "## Manifest of generated videos\n\n`manifest.parquet`, written by `generate`. One row a prompt.",
        _columns(manifest.MANIFEST_SCHEMA, manifest.MANIFEST_COLUMNS),
    )


def score_names() -> list[str]:
    """Return the score columns of a table with all scores."""
    return list(SCORES)


def score_columns() -> dict[str, Column]:
    """Return the descriptions of the score columns, which the scores give themselves."""
    return {
        name: Column(f"score: {score.description}", f"{score.unit}; {score.range[0]:g} to {score.range[1]:g}")
        for name, score in SCORES.items()
    }


def added_by_index() -> "pa.Schema":
    """Return the columns of a clips index that its shards do not have."""
    import pyarrow as pa

    known = set(clips_schema(()).names)
    return pa.schema([field for field in clips_index_schema(()) if field.name not in known])


def latents_scalars() -> "pa.Schema":
    """Return the columns of a table of latents except its arrays."""
    return latents_schema((), captioned=False)


def _columns(schema: "pa.Schema", meanings: Mapping[str, Column]) -> str:
    rows: list[Sequence[str]] = []
    for field in schema:
        column = meanings[field.name]
        kind = str(field.type).replace("<element: ", "<").replace("<item: ", "<")
        rows.append(
            (
                code(field.name),
                code(kind),
                "yes" if field.nullable else "no",
                escape(column.unit),
                escape(column.meaning),
            )
        )
    return table(("column", "type", "null", "unit", "meaning"), rows)


def _arrays() -> str:
    rows = [(code(name), escape(column.meaning)) for name, column in columns.LATENTS_ARRAYS.items()]
    return table(("array, float16", "meaning"), rows)


def _prompts() -> str:
    rows = [(code(name), escape(column.meaning)) for name, column in prompts.COLUMN_MEANINGS.items()]
    return table(("column", "meaning"), rows)
