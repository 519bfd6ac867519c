"""Dataset card (README.md) of a Hugging Face dataset: metadata for the `datasets` library, and a description."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from videogen.data.tables import PublishedTable

if TYPE_CHECKING:
    import pyarrow as pa

README_NAME = "README.md"

_DTYPES = {"float": "float32", "double": "float64", "halffloat": "float16"}
"""Arrow type names that differ from those of the `datasets` library."""

Columns = Mapping[str, tuple["pa.DataType", dict[str, Any]]]
"""Parquet type and `datasets` feature of each column."""


@dataclass(frozen=True)
class WrittenSet:
    """One set of rows, a config in terms of the `datasets` library."""

    name: str
    folder: str
    columns: Columns
    num_rows: int
    num_bytes: int
    files: tuple[str, ...]


def feature_of(kind: "pa.DataType") -> dict[str, Any]:
    """Return the `datasets` feature of an Arrow type, as stored in parquet metadata."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"feature": feature_of(kind.value_type), "_type": "List"}
    return {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}


def write_card(table: PublishedTable, sets: Sequence[WrittenSet]) -> str:
    """Return the text of the README.md; the first set is the default config."""
    import yaml

    configs = [
        {"config_name": one.name, "data_files": [{"split": "train", "path": f"{one.folder}/train-*"}]} for one in sets
    ]
    infos = [{"config_name": one.name, **_info(one)} for one in sets]
    head = {"configs": configs, "dataset_info": infos if len(infos) > 1 else infos[0]}
    arrays = ", ".join(f"`{name}`" for name in table.array_columns)
    shape = f" Arrays ({arrays}) are flat; `NAME_shape` has their shape." if arrays else ""
    code = ['rows = datasets.load_dataset("FOLDER", split="train")']
    videos = ""
    if len(sets) > 1:
        name = sets[1].name
        videos = f" The {sets[1].num_rows} videos that they come from are the config `{name}`, found by `video_key`."
        code.append(f'{name} = datasets.load_dataset("FOLDER", "{name}", split="train")')
    body = "\n".join(code)
    kind = table.kind.name
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {kind.capitalize()}\n\n{sets[0].num_rows} rows of "
        f"a table of {kind}, exported by VideoGen Platform.{shape}{videos}\n\n```python\nimport datasets\n\n"
        f"{body}\n```\n"
    )


def _info(one: WrittenSet) -> dict[str, Any]:
    return {
        "features": [{"name": name, **_card_feature(feature)} for name, (_, feature) in one.columns.items()],
        "splits": [{"name": "train", "num_bytes": one.num_bytes, "num_examples": one.num_rows}],
        "download_size": one.num_bytes,
        "dataset_size": one.num_bytes,
    }


def _card_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return a feature in the notation of dataset cards."""
    if feature["_type"] == "Value":
        return {"dtype": feature["dtype"]}
    if feature["_type"] == "List":
        inner = _card_feature(feature["feature"])
        return {"list": inner.get("dtype", inner)}
    return {"dtype": feature["_type"].lower()}
