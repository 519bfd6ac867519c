"""Uses the stage "colour_grade" in every way in which a stage is used. Runs in the checkout that it was added to.

python use_it.py FOLDER RAY_ADDRESS
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import ray
import torch
from safetensors.numpy import load_file

import videogen
from pipelines.cluster.progress import Progress
from pipelines.generate.pipeline import GenerateOptions, generate
from pipelines.train.cascade import Cascade, CascadeOptions
from serve.config import ServeConfig, StageServeConfig
from serve.deployments import StageReplica, stage_deployments
from videogen.config import preset_names
from videogen.pipeline import VideoGenPipeline, save_random
from videogen.reporting.cascade.stages import describe_stages, gallery_columns
from videogen.stages import (
    CascadeConfig,
    build_objective,
    count_parameters,
    dataset_kind,
    load_preset,
    new_sample,
    run_stages,
)

STAGE, PROMPT, SEED = "colour_grade", "a red circle moving left", 7


def main(folder: Path, ray_address: str) -> None:
    assert Path(videogen.__file__).is_relative_to(Path.cwd())
    for name in preset_names():
        assert load_preset(name).stage_names()[-2:] == ("decode", STAGE)
    config = load_preset("tiny")
    model = str(folder / "model")
    save_random(model, config)
    train(config, model)
    frames = in_process(model, folder)
    in_batch(model, folder, ray_address, frames)
    in_service(model, folder, config)
    in_the_report(config, model)
    print("done")


def train(config: CascadeConfig, model: str) -> None:
    """Show that the graph trains it, and that its objective learns; put the result into the model."""
    cascade = Cascade(config, CascadeOptions(f"{model}_to_be"), Progress())
    assert STAGE in [node.name for node in cascade.nodes]
    assert count_parameters(config)[STAGE] == 12
    assert dataset_kind(STAGE) == "any", "what the graph and the worker ask"
    objective = build_objective(STAGE, config, model)
    assert objective.stage == STAGE
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    batch = objective.collate([{"frames": clip} for clip in clips])
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.03)
    losses = []
    for _ in range(20):
        loss, _ = objective(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    objective.save(objective.model.state_dict(), f"{model}/{STAGE}")


def in_process(model: str, folder: Path) -> np.ndarray:
    """Return the frames of the pipeline, as it is and saved and loaded."""
    pipeline = VideoGenPipeline.from_pretrained(model)
    frames = pipeline(PROMPT, seed=SEED).frames[0]
    [before] = run_stages(pipeline.stages()[:-1], [new_sample(PROMPT, SEED)])
    assert before["frames"].shape == frames.shape
    assert frames.mean() > before["frames"].mean() + 10, "what was dark is brighter"
    pipeline.save_pretrained(folder / "saved")
    index = json.loads((folder / "saved" / "model_index.json").read_text())
    assert index[STAGE] == ["videogen.stages.colour_grade.network", "ColourGrade"]
    loaded = VideoGenPipeline.from_pretrained(folder / "saved")
    assert np.array_equal(loaded(PROMPT, seed=SEED).frames[0], frames)
    return frames


def in_batch(model: str, folder: Path, ray_address: str, frames: np.ndarray) -> None:
    """Show that batch generation gives the frames of the pipeline."""
    prompts = folder / "prompts.parquet"
    pd.DataFrame({"id": ["one"], "prompt": [PROMPT], "seed": [SEED]}).to_parquet(prompts)
    ray.init(ray_address, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}, log_to_driver=False)
    result = generate(model, str(prompts), str(folder / "generated"), GenerateOptions(save_intermediates=True))
    assert [row["error"] for row in result.rows] == [""]
    arrays = load_file(folder / "generated" / "intermediates" / "one.safetensors")
    assert np.array_equal(arrays[f"{STAGE}.frames"], frames)
    assert not np.array_equal(arrays["decode.frames"], frames)


def in_service(model: str, folder: Path, config: CascadeConfig) -> None:
    """Show that the service has a deployment for it, and that the class of its replicas runs it."""
    deployments = stage_deployments(model, config, ServeConfig(storage=str(folder)))
    assert list(deployments)[-1] == STAGE

    async def run() -> np.ndarray:
        replica = StageReplica(STAGE, model, StageServeConfig())
        assert (await replica.keys()).consumes == ("frames",)
        output = await replica.run({"frames": np.full((2, 8, 8, 3), 100, np.uint8)})
        return output.values["frames"]

    assert asyncio.run(run()).mean() > 100


def in_the_report(config: CascadeConfig, model: str) -> None:
    """Show that the page has a column for it."""
    assert [column["title"] for column in gallery_columns(config)[-2:]] == ["Decoded", "Final"]
    described = describe_stages(config, Path(model))
    assert described[-1]["summary"] == "grades the colours of the finished frames"
    assert described[-1]["parameters"] == 12


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
