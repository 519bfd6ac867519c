"""The graph of the cascade, and training through Ray: skipping, failing, overlapping, dying and coming back."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import psutil
import pytest
import torch

from pipelines.cluster.connection import Resources
from pipelines.cluster.progress import Progress
from pipelines.runner import step_records
from pipelines.train import dag
from pipelines.train import steps as cascade_steps
from pipelines.train.cascade import Cascade, CascadeOptions
from pipelines.train.dag import Node
from pipelines.train.dry_run import state_bytes
from pipelines.train.stage import TrainProgress, train_stage
from tests.conftest import load_job
from videogen import storage
from videogen.data.datasets.latents_table import encoder_fingerprint
from videogen.errors import UserError
from videogen.stages import apply_overrides, load_preset

FEW_STEPS = [
    f"{stage}.training.{setting}"
    for stage in ("interpolate", "decode")
    for setting in ("steps=4", "batch_size=2", "warmup_steps=0", "log_every=2")
]


def node(name: str, work=lambda: None, done: bool = False, needs=(), cpus: float = 1) -> Node:
    return Node(name, name, work, lambda: done, tuple(needs), Resources(cpus))


def run(nodes: list[Node], cpus: float = 2) -> dag.Outcome:
    return dag.run(nodes, Resources(cpus), on_skip=[].append)


# --- the graph ----------------------------------------------------------------------------------------------------


def test_independent_steps_overlap_and_dependent_ones_wait():
    together, order = threading.Barrier(2, timeout=10), []

    def meet() -> None:
        together.wait()

    nodes = [
        node("first", lambda: order.append("first")),
        node("left", meet, needs=["first"]),
        node("right", meet, needs=["first"]),
        node("last", lambda: order.append("last"), needs=["left", "right"]),
    ]
    outcome = run(nodes)
    assert not outcome.failed
    assert order == ["first", "last"]


def test_steps_that_do_not_fit_together_take_turns():
    running, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.05)
        with lock:
            running[0] -= 1

    outcome = run([node(str(index), work) for index in range(5)], cpus=2)
    assert len(outcome.finished) == 5
    assert most[0] == 2
    most[0] = 0
    run([Node(str(index), "", work, lambda: False, (), Resources(alone=True)) for index in range(3)], cpus=8)
    assert most[0] == 1


def test_a_failed_step_stops_only_what_needs_it():
    def fail() -> None:
        raise ValueError("first line\nthe cause")

    nodes = [node("bad", fail), node("good"), node("after", needs=["bad"]), node("later", needs=["after"])]
    outcome = run(nodes)
    assert outcome.finished == ["good"]
    assert outcome.failed == {"bad": "ValueError: the cause"}
    assert outcome.blocked == {"after": "bad", "later": "after"}


def test_done_steps_are_skipped_and_what_follows_an_open_step_is_open():
    nodes = [node("done", done=True), node("open"), node("follows", done=True, needs=["open"])]
    assert dag.pending(nodes) == ["open", "follows"]
    assert run(nodes).skipped == ["done", "follows"]


# --- what the job says before it starts ---------------------------------------------------------------------------


def test_a_dry_run_shows_steps_sizes_and_memory_and_starts_nothing(tmp_path, capsys):
    load_job("train_cascade").main(["--output", str(tmp_path / "model"), "--dry-run"])
    shown = capsys.readouterr().out
    for word in ("corpora", "autoencoder", "encode_captioned", "reference", "upsample", "decode", "to do", "GiB"):
        assert word in shown
    assert not list(tmp_path.iterdir())


def test_zero_divides_states_over_workers():
    training = load_preset("tiny").base.training.model_copy(update={"num_workers": 4, "ema_decay": 0.0})
    sizes = [state_bytes(1000, training.model_copy(update={"zero_stage": stage})) for stage in range(4)]
    assert sizes == [16_000, 11_000, 8_000, 5_000]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": ("bsae",)}, ["bsae", "'base'"]),
        ({"stages": ("decode",), "init_from": "."}, ["--init-from", "decode"]),
        ({"data": "nowhere"}, ["nowhere", "does not exist"]),
    ],
)
def test_wrong_options_are_refused(options, words, tmp_path):
    with pytest.raises(UserError) as refusal:
        Cascade(load_preset("tiny"), CascadeOptions(str(tmp_path / "model"), **options), Progress())
    for word in words:
        assert word in str(refusal.value)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    config = apply_overrides(load_preset("tiny"), ["base.training.batch_size=6", "base.training.num_workers=4"])
    with pytest.raises(UserError, match=r"base\.training.* multiple of 4"):
        Cascade(config, CascadeOptions(str(tmp_path / "model")), Progress())


@pytest.mark.process
def test_without_frames_between_key_frames_nothing_is_learned_but_the_model_is_whole(world_corpus, tmp_path):
    from videogen.stages.interpolate.network import FlowInterpolator

    config = apply_overrides(load_preset("tiny"), ["temporal_factor=1"])
    cascade = Cascade(config, CascadeOptions(str(tmp_path / "model"), str(world_corpus)), Progress())
    assert "interpolate" not in cascade.stages
    (step,) = (node for node in cascade.nodes if node.name == "interpolate")
    assert not step.is_done()
    step.work()
    assert step.is_done()
    network = FlowInterpolator.from_pretrained(tmp_path / "model" / "interpolate")
    latents = torch.randn(1, config.num_frames, 4, 16, 16)
    assert torch.equal(network.interpolate(latents, 1), latents)
    with pytest.raises(UserError, match="no stage 'interpolate' to train"):
        Cascade(config, CascadeOptions(str(tmp_path / "model"), stages=("interpolate",)), Progress())


def test_latents_bring_their_autoencoder_and_text_encoder_into_a_new_model(latents_table, tiny_model, s3):
    storage.upload(latents_table, f"{s3}/table")
    for name in ("autoencoder", "text_encoder", "tokenizer"):
        storage.upload(f"{tiny_model}/{name}", f"{s3}/table/{name}")
    options = CascadeOptions(f"{s3}/new/model", f"{s3}/table", stages=("base",))
    cascade = Cascade(load_preset("tiny"), options, Progress())
    steps = {node.name: node for node in cascade.nodes}
    for name in ("text", "autoencoder"):
        assert f"{s3}/table" in steps[name].what
        steps[name].work()
        assert steps[name].is_done()
    for name in ("autoencoder", "text_encoder"):
        assert encoder_fingerprint(f"{s3}/new/model/{name}") == encoder_fingerprint(f"{tiny_model}/{name}")


@pytest.mark.parametrize("place", ["", "clips"])
def test_own_latents_of_an_earlier_release_are_made_anew_and_others_are_refused(
    place, world_corpus, tiny_model, tmp_path, monkeypatch
):
    table, made = tmp_path / "latents" / "clips", []
    kind = {"": "latents", "clips": "clips"}[place]
    (table / place).mkdir(parents=True)
    (table / place / "manifest.json").write_text(json.dumps({"kind": kind, "schema_version": 1}))
    shutil.copytree(tiny_model, tmp_path / "model")
    monkeypatch.setattr(cascade_steps, "encode", lambda *_, **__: made.append(table.exists()))
    options = CascadeOptions(str(tmp_path / "model"), str(world_corpus), stages=("base",))
    if not place:
        with pytest.raises(UserError, match="latents"):
            Cascade(load_preset("tiny"), options, Progress())
    step_records.write(str(tmp_path / "model"), "encode", step_records.Identity("of", "before"))
    cascade = Cascade(load_preset("tiny"), options, Progress())
    (step,) = (node for node in cascade.nodes if node.name == "encode")
    step.work()
    assert made == [False]


def test_workers_without_a_gpu_do_not_see_the_nodes(run_script, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import os\n"
        "from pipelines.train.worker import keep_off_gpus\n"
        "from videogen.stages import apply_overrides, load_preset\n"
        "for use_gpu in ('true', 'false'):\n"
        "    keep_off_gpus(apply_overrides(load_preset('tiny'), [f'base.training.use_gpu={use_gpu}']), 'base')\n"
        "    print(repr(os.environ['CUDA_VISIBLE_DEVICES']), os.environ['DS_ACCELERATOR'])\n"
        "from videogen.training.engine import import_deepspeed\n"
        "print(import_deepspeed().accelerator.get_accelerator().device_name())\n"
    )
    shown = run_script(str(script), CUDA_VISIBLE_DEVICES="0", DS_ACCELERATOR="cuda").stdout
    assert shown.split("\n")[:3] == ["'0' cuda", "'' cpu", "cpu"]


# --- through Ray --------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path, tiny_model: str) -> Path:
    """Return a model folder with nothing but the frozen components."""
    for name in ("autoencoder", "text_encoder", "tokenizer"):
        shutil.copytree(Path(tiny_model) / name, tmp_path / "model" / name)
    return tmp_path / "model"


@pytest.mark.slow
def test_a_failed_stage_names_itself_cause_and_cure_and_the_next_run_continues(model, latents_table, capsys):
    job = load_job("train_cascade").main
    command = ["--data", latents_table, "--output", str(model), "--stages", "interpolate,decode", "--set", *FEW_STEPS]
    with pytest.raises(SystemExit) as ended:
        job([*command, "decode.training.learning_rate=1e30"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "step 'decode' failed: " in said
    assert "decode.training.learning_rate" in said
    assert "python jobs/train_cascade.py --data" in said
    assert (model / "interpolate" / "config.json").exists()
    assert not (model / "decode").exists()

    stamp = (model / "stages" / "interpolate.json").read_bytes()
    job(command)
    assert (model / "decode" / "config.json").exists()
    assert (model / "stages" / "interpolate.json").read_bytes() == stamp

    config = apply_overrides(load_preset("tiny"), FEW_STEPS)
    options = CascadeOptions(str(model), latents_table, stages=("interpolate", "decode"))
    open_steps = {
        key: dag.pending(Cascade(apply_overrides(config, [key]), options, Progress()).nodes)
        for key in ("interpolate.training.log_every=1", "decode.chunk_frames=5", "decode.training.steps=5", "seed=1")
    }
    # How to log and how to decode later change no weights. Other stages are missing, so the model stays unassembled.
    assert open_steps == {
        "interpolate.training.log_every=1": ["assemble"],
        "decode.chunk_frames=5": ["assemble"],
        "decode.training.steps=5": ["decode", "assemble"],
        "seed=1": ["text", "interpolate", "decode", "assemble"],
    }


@pytest.mark.slow
def test_a_killed_worker_comes_back_and_the_weights_are_bit_equal(model, latents_table):
    settings = ["steps=80", "batch_size=2", "checkpoint_every=20", "log_every=10", "ema_decay=0.9"]
    config = apply_overrides(load_preset("tiny"), [f"interpolate.training.{setting}" for setting in settings])
    undisturbed = model.with_name("undisturbed")
    shutil.copytree(model, undisturbed)
    train_stage(config, "interpolate", latents_table, str(undisturbed))

    killed: list[int] = []

    def kill(now: TrainProgress) -> None:
        if now.step > 20 and not killed:
            killed.extend(_training_workers())
            for worker in killed:
                os.kill(worker, signal.SIGKILL)

    train_stage(config, "interpolate", latents_table, str(model), on_progress=kill)
    assert killed
    name = "diffusion_pytorch_model.safetensors"
    assert (model / "interpolate" / name).read_bytes() == (undisturbed / "interpolate" / name).read_bytes()

    def losses(folder: Path) -> dict[int, float]:
        lines = (folder / "training" / "interpolate" / "metrics.jsonl").read_text().splitlines()
        return {line["step"]: line["loss"] for line in map(json.loads, lines)}

    assert losses(model) == losses(undisturbed)
    assert storage.read_json(f"{model}/stages/interpolate.json")["details"]["samples"] == 160


@pytest.mark.parametrize(
    ("stage", "setting", "words"),
    [
        ("decode", "use_gpu=true", "'decode' .* 0 GPUs"),
        ("base", "num_workers=16", "'base' wants 16 workers, .* 4 cores"),
    ],
)
def test_a_machine_that_is_too_small_for_the_last_stage_is_told_before_the_first(
    stage, setting, words, world_corpus, ray_cluster, tmp_path
):
    command = ["--data", str(world_corpus), "--output", str(tmp_path / "model")]
    with pytest.raises(UserError, match=words):
        load_job("train_cascade").main([*command, "--set", f"{stage}.training.{setting}"])
    assert not list(tmp_path.iterdir())


def _training_workers() -> list[int]:
    """Return the training workers among this process's own descendants."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::RayTrainWorker"):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
