"""Corpus of good videos among many damaged ones, and the assertions on tables that are made of it."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests._videos import KINDS, make
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.latents_table import LatentsTable

HEAVY = ("endless", "memory_bomb")
"""Kinds whose first clips can be read within the limits and whose last cannot; how many depends on the machine."""
CLIP_FRAMES = 15
"""Frames of a clip of the preset; a shorter video gives no clip, and a row of errors."""


@dataclass(frozen=True)
class Corpus:
    """Corpus that `build` made."""

    everything: Path
    good: Path
    """Folder with the good files alone, under the same names."""
    num_files: int
    num_good: int
    must_fail: frozenset[str]
    """Names of files that every reader must refuse."""
    too_short: frozenset[str]
    """Names of good files that are shorter than a clip."""


def build(folder: Path, num_files: int, seed: int = 0, heavy: bool = True) -> Corpus:
    """Make a corpus: one file of each kind, then mutations of good files and good files, two to one.

    The corpus is `everything/`; its good files are linked into `good/`.

    Args:
        folder: parent of both folders.
        num_files: number of all files.
        seed: seed of the mutations.
        heavy: whether to include the kinds of `HEAVY`.
    """
    rng = np.random.default_rng(seed)
    everything, good = folder / "everything", folder / "good"
    everything.mkdir(parents=True)
    good.mkdir()
    kinds = [name for name in KINDS if heavy or name not in HEAVY]
    good_kinds = [name for name in kinds if KINDS[name].good]
    must_fail, too_short = set(), set()
    num_good = 0
    originals: dict[str, bytes] = {}
    for index in range(num_files):
        if index < len(kinds):
            kind, mutation = kinds[index], None
        else:
            kind = good_kinds[int(rng.integers(len(good_kinds)))]
            mutation = None if index % 3 == 0 else _MUTATIONS[index % len(_MUTATIONS)]
        name = f"{index:05}-{mutation.__name__ if mutation else kind}{KINDS[kind].suffix}"
        path = everything / name
        if mutation is not None:
            if kind not in originals:
                make(kind, path, seed=index)
                originals[kind] = path.read_bytes()
            path.write_bytes(mutation(bytearray(originals[kind]), rng))
            if mutation in _HOPELESS:
                must_fail.add(name)
            continue
        make(kind, path, seed=index)
        if KINDS[kind].good:
            os.link(path, good / name)
            num_good += 1
            if KINDS[kind].num_frames < CLIP_FRAMES:
                too_short.add(name)
        elif kind not in HEAVY:
            must_fail.add(name)
    return Corpus(everything, good, num_files, num_good, frozenset(must_fail), frozenset(too_short))


# --- mutations ------------------------------------------------------------------------------------------------------


def bit_flips(data: bytearray, rng: np.random.Generator) -> bytes:
    """Flip one bit in a thousand bytes."""
    for _ in range(max(1, len(data) // 1000)):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def truncated(data: bytearray, rng: np.random.Generator) -> bytes:
    """Truncate."""
    return bytes(data[: int(rng.integers(1, len(data)))])


def zeroed(data: bytearray, rng: np.random.Generator) -> bytes:
    """Overwrite a range with zeros, as a failing disk does."""
    start = int(rng.integers(len(data)))
    end = min(len(data), start + int(rng.integers(1, 1 + len(data) // 3)))
    data[start:end] = bytes(end - start)
    return bytes(data)


def shuffled(data: bytearray, rng: np.random.Generator) -> bytes:
    """Shuffle blocks, as a faulty multipart download may."""
    size = max(1, len(data) // 16)
    blocks = [bytes(data[start : start + size]) for start in range(0, len(data), size)]
    return b"".join(blocks[index] for index in rng.permutation(len(blocks)))


def absurd_header(data: bytearray, rng: np.random.Generator) -> bytes:
    """Write huge numbers over fields of the mp4 header, or over the first bytes of other formats."""
    for box in (b"tkhd", b"mdhd", b"stts", b"stsz", b"avc1"):
        at = data.find(box)
        if at >= 0 and rng.random() < 0.7:
            at += 8 + int(rng.integers(24))
            data[at : at + 4] = b"\x7f\xff\xff\xf0"
    data[8:12] = b"\xff\xff\xff\xff"
    return bytes(data)


def empty(data: bytearray, rng: np.random.Generator) -> bytes:
    """Return an empty file."""
    return b""


def text(data: bytearray, rng: np.random.Generator) -> bytes:
    """Return an HTML page."""
    return b"<html><title>404 Not Found</title></html>\n" * int(rng.integers(1, 200))


def noise(data: bytearray, rng: np.random.Generator) -> bytes:
    """Return random bytes."""
    return rng.bytes(len(data))


_MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], bytes], ...] = (
    bit_flips,
    truncated,
    zeroed,
    shuffled,
    absurd_header,
    empty,
    text,
    noise,
)
_HOPELESS = {empty, text, noise}


# --- assertions on tables -------------------------------------------------------------------------------------------

LATENTS = ("latents_8", "latents_8_logvar", "latents_16", "latents_16_logvar")


def live_rows(table: Path) -> pd.DataFrame:
    """Return the rows of a table of latents, read by the library."""
    opened = LatentsTable.open(str(table))
    fields = ("source", "clip_id", "frame_indices", "decoder", *LATENTS)
    return pd.DataFrame([opened.row(index, fields) for index in range(len(opened))])


def clip_rows(table: Path) -> pd.DataFrame:
    """Return the clips that a table of latents was made from, without their position in shards."""
    batches = ClipsTable.open(str(table / "clips")).batches()
    return pd.concat([batch.to_pandas() for batch in batches], ignore_index=True).drop(columns=["shard", "row"])


def by_clip(rows: pd.DataFrame) -> dict[tuple[str, tuple[int, ...]], pd.Series]:
    """Return rows by file name and frame indices."""
    return {(Path(row.source).name, tuple(row.frame_indices)): row for row in rows.itertuples()}


def unequal(rows: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """Return descriptions of rows that are missing in `others` or whose latents differ in any bit."""
    there = by_clip(others)
    wrong = []
    for key, row in by_clip(rows).items():
        if key not in there:
            wrong.append(f"{key} is lost")
        elif not all(np.array_equal(getattr(row, name), getattr(there[key], name)) for name in LATENTS):
            wrong.append(f"{key} differs ({row.decoder}, {there[key].decoder})")
    return wrong


def check(corpus: Corpus, table: Path, clean: Path) -> Counter[str]:
    """Assert that `table` has every clip of `clean` and a row for every file; return numbers of files by outcome."""
    found, alone = live_rows(table), live_rows(clean)
    assert found["clip_id"].is_unique
    assert len(by_clip(found)) == len(found)
    assert unequal(alone, found) == []
    errors = pd.read_parquet(table / "errors.parquet")
    lost = {Path(uri).name for uri in errors["uri"]}
    seen = {Path(source).name for source in found["source"]}
    names = {path.name for path in corpus.everything.iterdir()}
    assert len(names) == corpus.num_files
    assert names - seen - lost == set(), "files without a row"
    assert seen | lost == names
    assert corpus.must_fail <= lost
    assert not corpus.must_fail & seen
    assert corpus.too_short <= lost - seen
    good = {path.name for path in corpus.good.iterdir()}
    assert {Path(source).name for source in alone["source"]} == good - corpus.too_short
    assert (errors["error"].str.len() > 5).all()
    assert errors["item_id"].is_unique
    assert not list(table.rglob("*.partial"))
    assert not list(table.glob("parts/*"))
    return Counter({"ok": len(seen), "lost": len(lost), "partly": len(seen & lost)})
