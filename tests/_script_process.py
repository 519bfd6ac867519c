"""Scripts run in a fork of a process that has already imported what most of them import.

Environment, arguments, working directory and the ends of stdout and stderr are the child's own; nothing that a script
does stays behind.
"""

import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pandas", "pyarrow.parquet", "s3fs", "pipelines.train.cascade"])


def run_in_fork(
    script: str, arguments: Sequence[str], env: Mapping[str, str], timeout_s: float
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run `python SCRIPT ARGUMENTS...` ("-m" and a module's name are a script too).

    Returns:
        The completed process with its output, and its processor time in seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = [str(Path(folder, name)) for name in ("stdout", "stderr", "seconds")]
        process = _context.Process(target=_run, args=(script, list(arguments), dict(env), *written))
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([script, *arguments], timeout_s)
        stdout, stderr, seconds = (Path(path).read_text() if Path(path).exists() else "" for path in written)
    assert process.exitcode is not None
    # Without seconds it was killed: what it had printed says more.
    spent_s = float(seconds or "nan")
    return subprocess.CompletedProcess([script, *arguments], process.exitcode, stdout, stderr), spent_s


def _run(script: str, arguments: list[str], env: dict[str, str], stdout: str, stderr: str, seconds: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    before = _cpu_s()
    try:
        if script == "-m":
            sys.argv = [arguments[0], *arguments[1:]]
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [script, *arguments]
            sys.path.insert(0, str(Path(script).resolve().parent))
            runpy.run_path(script, run_name="__main__")
    finally:
        Path(seconds).write_text(str(_cpu_s() - before))


def _cpu_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
