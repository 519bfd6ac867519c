"""A corpus under fire: good videos among many damaged ones, and what must be true of tables made of it.

    python -m tests.under_fire --files 1000 --kills 6

makes the corpus, encodes the good files alone and then everything, the second time while processes are killed at
random, compares, and prints the figures of docs/reliability.md. The tests run the same with fewer files.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests._videos import KINDS, make

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Corpus:
    """What `build` made."""

    everything: Path
    good: Path
    """The same good files alone, under the same names."""
    num_files: int
    num_good: int
    must_fail: frozenset[str]
    """Names of files that no reader can make sense of."""


def build(folder: Path, num_files: int, seed: int = 0) -> Corpus:
    """Make a corpus: one file of each kind, then mutations of good files, a third of all good.

    The corpus is `everything/`; its good files are linked into `good/`.
    """
    rng = np.random.default_rng(seed)
    everything, good = folder / "everything", folder / "good"
    everything.mkdir(parents=True)
    good.mkdir()
    kinds = [name for name, kind in KINDS.items() if not kind.hangs]
    good_kinds = [name for name in kinds if KINDS[name].good]
    must_fail = set()
    num_good = 0
    originals: dict[str, bytes] = {}
    for index in range(num_files):
        if index < len(kinds):
            kind, mutation = kinds[index], None
        else:
            kind = good_kinds[int(rng.integers(len(good_kinds)))]
            mutation = None if index % 3 == 0 else _MUTATIONS[index % len(_MUTATIONS)]
        suffix = KINDS[kind].suffix
        name = f"{index:05}-{mutation.__name__ if mutation else kind}{suffix}"
        path = everything / name
        make(kind, path, seed=index)
        if mutation is not None:
            data = originals.setdefault(kind, path.read_bytes())
            path.write_bytes(mutation(bytearray(data), rng))
            if mutation in _HOPELESS:
                must_fail.add(name)
        elif KINDS[kind].good:
            os.link(path, good / name)
            num_good += 1
        else:
            must_fail.add(name)
    return Corpus(everything, good, num_files, num_good, frozenset(must_fail))


# --- mutations: from whole bytes to damaged ones --------------------------------------------------------------------


def bit_flips(data: bytearray, rng: np.random.Generator) -> bytes:
    """Turn one bit in a thousand bytes."""
    for _ in range(max(1, len(data) // 1000)):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def truncated(data: bytearray, rng: np.random.Generator) -> bytes:
    """Keep a beginning."""
    return bytes(data[: int(rng.integers(1, len(data)))])


def zeroed(data: bytearray, rng: np.random.Generator) -> bytes:
    """Lose a stretch in the middle, as a bad disk does."""
    start = int(rng.integers(len(data)))
    end = min(len(data), start + int(rng.integers(1, 1 + len(data) // 3)))
    data[start:end] = bytes(end - start)
    return bytes(data)


def shuffled(data: bytearray, rng: np.random.Generator) -> bytes:
    """Exchange blocks, as a download in pieces may."""
    size = max(1, len(data) // 16)
    blocks = [bytes(data[start : start + size]) for start in range(0, len(data), size)]
    return b"".join(blocks[index] for index in rng.permutation(len(blocks)))


def absurd_header(data: bytearray, rng: np.random.Generator) -> bytes:
    """Write huge numbers over the header's fields, where an mp4 has them, else over the first bytes."""
    for box in (b"tkhd", b"mdhd", b"stts", b"stsz", b"avc1"):
        at = data.find(box)
        if at >= 0 and rng.random() < 0.7:
            at += 8 + int(rng.integers(24))
            data[at : at + 4] = b"\x7f\xff\xff\xf0"
    data[8:12] = b"\xff\xff\xff\xff"
    return bytes(data)


def empty(data: bytearray, rng: np.random.Generator) -> bytes:
    """Keep nothing."""
    return b""


def text(data: bytearray, rng: np.random.Generator) -> bytes:
    """Be something else under a video's name."""
    return b"<html><title>404 Not Found</title></html>\n" * int(rng.integers(1, 200))


def noise(data: bytearray, rng: np.random.Generator) -> bytes:
    """Be nothing at all."""
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


# --- what must be true -----------------------------------------------------------------------------------------------


def latents(table: Path) -> dict[tuple[str, tuple[int, ...]], bytes]:
    """Return every row's latents by file name and frames, read with nothing of ours but the shards' names."""
    found = {}
    for shard in sorted((table / "shards").glob("*.parquet")):
        for row in pd.read_parquet(shard).itertuples():
            key = (Path(row.source).name, tuple(row.frame_indices))
            values = row.latents_8 + row.latents_8_logvar + row.latents_16 + row.latents_16_logvar
            assert key not in found or found[key] == values
            found[key] = values
    return found


def live_rows(table: Path) -> pd.DataFrame:
    """Return the rows that the manifest speaks for, by the library's own reader."""
    from videogen.data import LatentsTable

    opened = LatentsTable.open(str(table))
    fields = ("source", "clip_id", "frame_indices", "latents_8", "latents_16")
    return pd.DataFrame([opened.row(index, fields) for index in range(len(opened))])


def check(corpus: Corpus, table: Path, clean: Path) -> Counter[str]:
    """Assert what must be true of a table of everything; return how files ended, by status."""
    fire, alone = live_rows(table), live_rows(clean)
    assert fire["clip_id"].is_unique
    by_clip = {(Path(row.source).name, tuple(row.frame_indices)): row for row in fire.itertuples()}
    for row in alone.itertuples():
        same = by_clip[(Path(row.source).name, tuple(row.frame_indices))]
        for name in ("latents_8", "latents_16"):
            assert np.array_equal(getattr(row, name), getattr(same, name)), row.source
    errors = pd.read_parquet(table / "errors.parquet")
    lost = {Path(uri).name for uri in errors["uri"]}
    seen = {Path(source).name for source in fire["source"]}
    names = {path.name for path in corpus.everything.iterdir()}
    assert seen | lost == names
    assert corpus.must_fail <= lost
    assert not corpus.must_fail & seen
    assert (errors["error"].str.len() > 5).all()
    assert not list(table.rglob("*.partial"))
    assert not list(table.glob("parts/*"))
    return Counter({"ok": len(seen), "lost": len(lost), "partly": len(seen & lost)})


# --- the command -----------------------------------------------------------------------------------------------------


def encode_command(corpus: Path, table: Path, model: str) -> list[str]:
    """Return a command that encodes a folder, whatever share of it fails."""
    script = (
        "import sys; from pipelines.encode import EncodeOptions, encode; from pipelines.ledgered import RunOptions; "
        "from videogen.config import load_preset; "
        "encode(*sys.argv[1:3], load_preset('tiny'), sys.argv[3], "
        "options=EncodeOptions(run=RunOptions(max_failure_rate=1.0, limit_s=5.0)))"
    )
    return [sys.executable, "-c", script, str(corpus), str(table), model]


def run_under_kills(command: list[str], kills: int, rng: random.Random, most_s: float) -> tuple[int, list[str]]:
    """Run a command again and again until it ends well; while kills are left, kill something of it at random.

    Returns:
        The number of runs, and what was killed.
    """
    killed: list[str] = []
    for run in range(1, kills + 20):
        driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
        until = time.monotonic() + rng.uniform(2, most_s)
        while driver.poll() is None and len(killed) < kills:
            time.sleep(0.2)
            if time.monotonic() >= until:
                killed.append(_kill_one(driver.pid, rng))
                until = time.monotonic() + rng.uniform(2, most_s)
        try:
            _, said = driver.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            # A driver whose cluster was killed under it may wait for it; whoever is on call starts it again.
            _end_group(driver.pid)
            _, said = driver.communicate()
        if driver.returncode == 0:
            return run, killed
        _end_group(driver.pid)
    raise AssertionError(f"not done after {run} runs; killed: {killed}; {said[-3000:]}")


def _kill_one(driver: int, rng: random.Random) -> str:
    """Kill the driver or one of the processes under it; return which."""
    import psutil

    try:
        family = [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]
        victim = rng.choice(family)
        name = " ".join(victim.cmdline()[:4])[:80]
        victim.kill()
    except psutil.NoSuchProcess:
        return "nothing"
    return name


def _end_group(driver: int) -> None:
    """End what a killed driver leaves behind: on a machine of one's own Ray notices by itself, after a while."""
    import contextlib

    with contextlib.suppress(ProcessLookupError):
        os.killpg(driver, signal.SIGKILL)


def main() -> None:
    """Run the whole and print its figures as a Markdown table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=1000)
    arguments.add_argument("--kills", type=int, default=6)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    from videogen.config import load_preset
    from videogen.pipeline import save_random

    folder = Path(tempfile.mkdtemp(prefix="under-fire-"))
    try:
        save_random(str(folder / "model"), load_preset("tiny"), seed=0)
        corpus = build(folder, options.files, options.seed)
        clean, table = folder / "clean", folder / "table"
        subprocess.run(encode_command(corpus.good, clean, str(folder / "model")), cwd=ROOT, check=True)
        started = time.perf_counter()
        command = encode_command(corpus.everything, table, str(folder / "model"))
        runs, killed = run_under_kills(command, options.kills, random.Random(options.seed), most_s=20)
        seconds = time.perf_counter() - started
        counts = check(corpus, table, clean)
        print("| files | good | ok | lost, each with its row | kills | runs | lost rows | doubled rows | seconds |")
        print("|---|---|---|---|---|---|---|---|---|")
        print(
            f"| {corpus.num_files} | {corpus.num_good} | {counts['ok']} | {counts['lost']} | {len(killed)} | {runs} "
            f"| 0 | 0 | {seconds:.0f} |"
        )
        print("killed: " + "; ".join(killed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
