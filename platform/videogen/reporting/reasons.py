"""Why inputs gave nothing: the tables of outcomes, grouped by stage and reason, with one example each."""

import re
from collections import Counter
from typing import NamedTuple

from videogen import storage

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(\.\d+)?")
_MAX_KINDS = 2000
"""Kinds that are told apart; of more than these, the rest is one."""
_OTHERS = ("", "(other reasons)")


class Reason(NamedTuple):
    """A kind of failure; numbers in its text are written as N."""

    stage: str
    error: str
    num_inputs: int
    example: str
    """URI of one input that failed so."""


def read_reasons(uri: str) -> list[Reason]:
    """Return the reasons in a table with the columns of errors.parquet, most frequent first; numbers are written as N.

    Args:
        uri: the table; if there is none, there are no reasons.
    """
    import pyarrow.parquet as pq

    if not storage.exists(uri):
        return []
    counter: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    filesystem, path = storage.arrow_filesystem(uri)
    with filesystem.open_input_file(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=["stage", "error", "uri"]):
            for record in batch.to_pylist():
                kind = (record["stage"], _NUMBER.sub("N", record["error"]))
                if kind not in counter and len(counter) >= _MAX_KINDS:
                    kind = _OTHERS
                counter[kind] += 1
                examples.setdefault(kind, record["uri"])
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [Reason(*kind, count, examples[kind]) for kind, count in ranked]
