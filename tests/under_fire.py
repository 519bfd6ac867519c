"""A corpus under fire: good videos among many damaged ones, and what must be true of tables made of it.

    python -m tests.under_fire --files 1700 --kills 10

makes the corpus, encodes the good files alone and then everything, the second time while processes are killed, compares
both, and prints the figures of a campaign. The tests run the same with fewer files.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from tests._videos import KINDS, make
from videogen.data.datasets.clips_table import ClipsTable

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("endless", "memory_bomb")
"""Kinds whose first clips can be read in time, the last cannot; how many, depends on the machine."""
CLIP_FRAMES = 15
"""Frames of a clip of the preset that is used; a video that has fewer gives none, and a row that says so."""


@dataclass(frozen=True)
class Corpus:
    """What `build` made."""

    everything: Path
    good: Path
    """The same good files alone, under the same names."""
    num_files: int
    num_good: int
    must_fail: frozenset[str]
    """Names of files that no reader can make sense of, or of which it must not."""
    too_short: frozenset[str]
    """Names of good files without a single clip."""


def build(folder: Path, num_files: int, seed: int = 0, heavy: bool = True) -> Corpus:
    """Make a corpus: one file of each kind, then mutations of good files, a third of all good.

    The corpus is `everything/`; its good files are linked into `good/`.

    Args:
        folder: where.
        num_files: in all.
        seed: of the mutations.
        heavy: whether the kinds of `HEAVY` are among them.
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

LATENTS = ("latents_8", "latents_8_logvar", "latents_16", "latents_16_logvar")


def live_rows(table: Path) -> pd.DataFrame:
    """Return the rows that the manifest speaks for, by the library's own reader."""
    from videogen.data.datasets.latents_table import LatentsTable

    opened = LatentsTable.open(str(table))
    fields = ("source", "clip_id", "frame_indices", "decoder", *LATENTS)
    return pd.DataFrame([opened.row(index, fields) for index in range(len(opened))])


def clip_rows(table: Path) -> pd.DataFrame:
    """Return the clips that a table of latents was made of, without where their rows lie."""
    batches = ClipsTable.open(str(table / "clips")).batches()
    return pd.concat([batch.to_pandas() for batch in batches], ignore_index=True).drop(columns=["shard", "row"])


def by_clip(rows: pd.DataFrame) -> dict[tuple[str, tuple[int, ...]], pd.Series]:
    """Return rows by the file's name and the frames."""
    return {(Path(row.source).name, tuple(row.frame_indices)): row for row in rows.itertuples()}


def unequal(rows: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """Return which of `rows` are not in `others`, or not with the same latents, bit for bit."""
    there = by_clip(others)
    wrong = []
    for key, row in by_clip(rows).items():
        if key not in there:
            wrong.append(f"{key} is lost")
        elif not all(np.array_equal(getattr(row, name), getattr(there[key], name)) for name in LATENTS):
            wrong.append(f"{key} differs ({row.decoder}, {there[key].decoder})")
    return wrong


def check(corpus: Corpus, table: Path, clean: Path) -> Counter[str]:
    """Assert what must be true of a table of everything; return how files ended, by status."""
    fire, alone = live_rows(table), live_rows(clean)
    assert fire["clip_id"].is_unique
    assert len(by_clip(fire)) == len(fire)
    assert unequal(alone, fire) == []
    errors = pd.read_parquet(table / "errors.parquet")
    lost = {Path(uri).name for uri in errors["uri"]}
    seen = {Path(source).name for source in fire["source"]}
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


# --- processes that are killed ---------------------------------------------------------------------------------------

ROLES = ("driver", "raylet", "worker", "decoder", "gcs_server")
"""Who is killed, in turns: the job's own process; the node, which holds the object store; a process that runs a task; a
decoder; the cluster's head."""
_MARK = "VIDEOGEN_UNDER_FIRE"
_LINES = 8
_GRACE_S = 30.0
"""How long what is left of killed jobs may take to end by itself, once the last one has ended well."""


@dataclass
class Fire:
    """What happened in `run_under_kills`."""

    runs: int = 0
    killed: list[str] = field(default_factory=list)
    """Roles, in order."""
    unnoticed: list[str] = field(default_factory=list)
    """Roles after whose death the driver had to be ended as well."""
    said: list[str] = field(default_factory=list)
    """The last lines of each run that did not end well."""
    orphans: list[str] = field(default_factory=list)
    """Processes that had to be ended."""
    outlived_s: float = 0.0
    """How long the last process outlived the last run."""
    left: list[str] = field(default_factory=list)
    """Temporary files that did."""


def encode_command(
    corpus: Path, table: Path, model: str, units: tuple[int, int] = (32, 32), limit_s: float = 5.0
) -> list[str]:
    """Return a command that encodes a folder, in units of so many clips and videos, whatever share of it fails."""
    script = (
        "import sys; from pipelines import encode, ingest; from pipelines.runner.run import RunOptions; "
        "from videogen.config import load_preset; "
        f"encode.CLIPS_PER_UNIT, ingest._VIDEOS_PER_UNIT = {units}; "
        "encode.encode(*sys.argv[1:3], load_preset('tiny'), sys.argv[3], "
        f"options=encode.EncodeOptions(run=RunOptions(max_failure_rate=1.0, limit_s={limit_s})))"
    )
    return [sys.executable, "-c", script, str(corpus), str(table), model]


class Family:
    """A job and all processes that it has started."""

    def __init__(self, command: list[str], temporary: Path) -> None:
        self._mark = uuid.uuid4().hex
        self.log = temporary / f"{self._mark}.log"
        places = {"TMPDIR": str(temporary), "RAY_TMPDIR": str(temporary)}
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with self.log.open("wb") as log:  # a pipe would stay open for as long as anyone of the family lives
            self.driver = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env={**env, **places, _MARK: self._mark}
            )
        self._members: set[psutil.Process] = set()

    def look(self) -> None:
        """Find those that are new: children, and whoever carries the mark although its parent is gone."""
        try:
            driver = psutil.Process(self.driver.pid)
            self._members |= {driver, *driver.children(recursive=True)}
        except psutil.NoSuchProcess:
            pass
        for process in psutil.process_iter():
            try:
                if process not in self._members and process.environ().get(_MARK) == self._mark:
                    self._members.add(process)
            except (psutil.Error, OSError):
                continue

    def alive(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield who lives, with its role."""
        for process in self._members:
            try:
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    yield _role(process, self.driver.pid), process
            except psutil.Error:
                continue

    def kill(self, role: str, rng: random.Random) -> bool:
        """Kill one of a role; return whether there was one."""
        found = sorted((process for one, process in self.alive() if one == role), key=lambda process: process.pid)
        if not found:
            return False
        try:
            rng.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def end(self, grace_s: float) -> list[str]:
        """Wait until everyone has ended, end the others, and return what these were."""
        until = time.monotonic() + grace_s
        while True:
            self.look()
            left = list(self.alive())
            if not left or time.monotonic() > until:
                break
            time.sleep(0.2)
        told = [f"{role} {' '.join(process.cmdline())[:120]!r}" for role, process in left]
        for _, process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return told


def _role(process: psutil.Process, driver: int) -> str:
    words = process.cmdline() or [""]
    name = words[0].rsplit("/", 1)[-1]
    if process.pid == driver:
        return "driver"
    if "videogen.data.isolation._server" in words:
        return "decoder"
    if name.startswith("ray::") and not name.startswith("ray::IDLE"):
        return "worker"
    return name


def run_under_kills(command: list[str], kills: int, seed: int, most_s: float, notice_s: float = 30.0) -> Fire:
    """Run a command again and again until it ends well; while kills are left, kill something of it.

    Args:
        command: see `encode_command`.
        kills: how many.
        seed: of what is killed when.
        most_s: seconds of work, at most, before the next kill.
        notice_s: seconds that a driver is given to notice that its cluster is gone.
    """
    rng, fire = random.Random(seed), Fire()
    families: list[Family] = []
    temporary = Path(tempfile.mkdtemp(prefix="uf-", dir="/tmp"))  # sockets lie in it, and their paths must be short
    try:
        for _ in range(kills + 5):
            family = Family(command, temporary)
            fire.runs += 1
            families.append(family)
            _watch(family, fire, kills, rng, most_s, notice_s)
            if family.driver.returncode == 0:
                started = time.monotonic()
                # What outlives a killed driver goes on beside the next run, as it would anywhere.
                fire.orphans = [told for one in families for told in one.end(_GRACE_S)]
                fire.outlived_s = time.monotonic() - started
                fire.left = sorted(path.name for path in temporary.glob("videogen-*"))
                return fire
            said = family.log.read_text(errors="replace").strip().splitlines()
            fire.said.append("\n".join(said[-_LINES:]))
        raise AssertionError(f"not done: {fire}")
    finally:
        for family in families:
            family.end(0)
        shutil.rmtree(temporary, ignore_errors=True)


def _watch(family: Family, fire: Fire, kills: int, rng: random.Random, most_s: float, notice_s: float) -> None:
    """Kill in a run what is to be killed; return when its driver has ended."""
    due, deadline = 0.0, float("inf")
    while family.driver.poll() is None:
        time.sleep(0.1)
        family.look()
        now = time.monotonic()
        if now > deadline:
            fire.unnoticed.append(fire.killed[-1])
            family.driver.kill()
            family.driver.wait()
            continue
        if deadline < float("inf") or len(fire.killed) >= kills:
            continue
        role = ROLES[len(fire.killed) % len(ROLES)]
        if not due and any(one == "worker" for one, _ in family.alive()):
            due = now + rng.uniform(0.2, most_s)
        if due and now >= due and family.kill(role, rng):
            fire.killed.append(role)
            due = 0.0
            if role in ("driver", "raylet", "gcs_server"):
                deadline = now + notice_s


# --- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the whole and print its figures as a Markdown table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=1700)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    from videogen.config import load_preset
    from videogen.pipeline import save_random

    folder = Path(tempfile.mkdtemp(prefix="under-fire-"))
    try:
        save_random(str(folder / "model"), load_preset("tiny"), seed=0)
        corpus = build(folder, options.files, options.seed)
        clean, table, model = folder / "clean", folder / "table", str(folder / "model")
        started = time.perf_counter()
        subprocess.run(encode_command(corpus.good, clean, model), cwd=ROOT, check=True)
        clean_s = time.perf_counter() - started
        started = time.perf_counter()
        fire = run_under_kills(encode_command(corpus.everything, table, model), options.kills, options.seed, most_s=12)
        fire_s = time.perf_counter() - started
        print(fire)
        counts = check(corpus, table, clean)
        lines = {
            "files": corpus.num_files,
            "of these good": corpus.num_good,
            "good, but shorter than a clip": len(corpus.too_short),
            "files with clips": counts["ok"],
            "files with a row in errors.parquet": counts["lost"],
            "of these with clips too": counts["partly"],
            "clips": len(live_rows(table)),
            "kills": ", ".join(fire.killed),
            "runs until done": fire.runs,
            "files without clips or row": 0,
            "clips doubled, or not bit-equal to the clean run": 0,
            "processes left": len(fire.orphans),
            "temporary files left": len(fire.left),
            "seconds, good files alone": round(clean_s),
            "seconds, everything, with kills": round(fire_s),
        }
        print("\n".join(f"| {name} | {value} |" for name, value in lines.items()))
        errors = pd.read_parquet(table / "errors.parquet")
        print(errors["error"].str.replace(r"[\d.]+", "N", regex=True).value_counts().head(40).to_string())
        assert not fire.orphans, fire.orphans
        assert not fire.left, fire.left
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
