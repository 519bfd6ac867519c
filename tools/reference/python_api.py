"""Reference of the Python API: the public names, which mkdocstrings renders from their docstrings."""

from tools.reference.markdown import page

_INTRODUCTION = """
The library is `videogen`; it does not import Ray. The functions that run on a cluster are in `pipelines`. What is not
on this page is not part of the public surface.
"""

PUBLIC: dict[str, tuple[str, ...]] = {
    "Run a cascade": ("videogen.pipeline.VideoGenPipeline", "videogen.pipeline.VideoGenPipelineOutput"),
    "Configure": (
        "videogen.stages.load_preset",
        "videogen.stages.apply_overrides",
        "videogen.stages.cascade.CascadeConfig",
        "serve.config.ServeConfig",
    ),
    "Run jobs from Python": (
        "pipelines.ingest.pipeline.ingest",
        "pipelines.ingest.pipeline.IngestOptions",
        "videogen.data.datasets.clips_table.IngestSpec",
        "pipelines.encode.pipeline.encode",
        "pipelines.encode.plan.EncodeOptions",
        "pipelines.train.cascade.Cascade",
        "pipelines.train.stage.train_stage",
        "pipelines.generate.pipeline.generate",
    ),
    "Read tables": (
        "videogen.data.datasets.clips_table.ClipsTable",
        "videogen.data.datasets.latents_table.LatentsTable",
        "videogen.data.datasets.dataset.ClipDataset",
        "videogen.data.datasets.dataset.JoinedClips",
        "videogen.data.datasets.frames.FrameDataset",
    ),
    "Extend": (
        "videogen.stages.stage.Stage",
        "videogen.stages.component.Component",
        "videogen.stages.definition.StageDefinition",
        "videogen.stages.objective.Objective",
        "videogen.data.curation.scores.Score",
        "videogen.data.curation.scores.ClipFrames",
    ),
    "Errors": ("videogen.errors.UserError",),
}


def render() -> str:
    """Return the page."""
    blocks = []
    for title, names in PUBLIC.items():
        blocks.append(f"## {title}")
        blocks += [f"::: {name}" for name in names]
    return page("Python API", _INTRODUCTION, *blocks)
