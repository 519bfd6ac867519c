"""The `videogen` command: every job is a sub-command, with the same options and exit statuses."""

import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

from jobs.__main__ import build_parser, run, sub_commands
from videogen.cli import EXIT_BAD_INPUT

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _keep_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["videogen"])


def test_every_job_is_a_command():
    jobs = {path.stem.replace("_", "-") for path in (ROOT / "jobs").glob("[!_]*.py")}
    assert set(sub_commands()) == jobs | {"serve"}


def test_help_lists_every_command_with_one_line(capsys):
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    for name in sub_commands():
        [line] = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        assert len(line) < 160, "the docstring's first sentence is the summary"
        assert line.endswith(".")


@pytest.mark.parametrize("name", [*sub_commands()])
def test_a_command_has_the_options_of_its_job(name, capsys):
    with pytest.raises(SystemExit) as stop:
        run([name, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: videogen {name}")
    for action in import_module(sub_commands()[name]).build_parser()._actions:
        assert all(option in printed for option in action.option_strings)


def test_underscores_are_dashes(capsys):
    with pytest.raises(SystemExit):
        run(["train_cascade", "--help"])
    assert capsys.readouterr().out.startswith("usage: videogen train-cascade")


def test_bad_input_has_the_jobs_sentence_and_status(tmp_path, capsys):
    assert run(["inspect-table", str(tmp_path / "nowhere")]) == EXIT_BAD_INPUT
    assert "nowhere" in capsys.readouterr().err


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    assert run(["ingets"]) == EXIT_BAD_INPUT
    assert "Did you mean 'ingest'?" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(shell, capsys):
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("ingest", "train-cascade", "--keep", "--init-from"))
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr


def test_completion_refuses_other_shells(capsys):
    assert run(["completion", "cmd"]) == EXIT_BAD_INPUT
    assert "bash,zsh,tcsh" in capsys.readouterr().err


def test_the_parser_of_everything_accepts_what_a_job_accepts():
    options = build_parser().parse_args(["ingest", "--input", "a", "--output", "b", "--keep", "motion > 1"])
    assert (options.command, options.keep) == ("ingest", ["motion > 1"])


def test_the_command_is_installed():
    [script] = [entry for entry in metadata.entry_points(group="console_scripts") if entry.name == "videogen"]
    assert script.value == "jobs.__main__:main"
