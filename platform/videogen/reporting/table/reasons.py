"""Failure reasons: rows of errors.parquet or filtered.parquet grouped by stage and message, with an example each."""

import re
from collections import Counter
from typing import NamedTuple

from videogen import storage

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(\.\d+)?")
_MAX_REASONS = 2000
"""Distinct reasons that are counted; the rest is counted as one."""
_OTHERS = ("", "(other reasons)")


class Reason(NamedTuple):
    """Group of inputs with the same outcome; numbers in the message are written as N."""

    stage: str
    error: str
    num_inputs: int
    example: str
    """URI of one of the inputs."""


def read_reasons(uri: str) -> list[Reason]:
    """Return the reasons in a table with the columns of errors.parquet, most frequent first.

    Args:
        uri: the table; a missing one has no reasons.
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
                reason = (record["stage"], _NUMBER.sub("N", record["error"]))
                if reason not in counter and len(counter) >= _MAX_REASONS:
                    reason = _OTHERS
                counter[reason] += 1
                examples.setdefault(reason, record["uri"])
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [Reason(*reason, count, examples[reason]) for reason, count in ranked]
