"""Training data of a stage: captioned latents, all latents, or frames of the corpus."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from videogen.errors import UserError
from videogen.hashing import json_hash
from videogen.stages import dataset_kind

if TYPE_CHECKING:
    from videogen.data.datasets.dataset import ClipDataset, JoinedClips
    from videogen.stages import CascadeConfig, DatasetKind


def data_fingerprint(stage: str, uris: Sequence[str], config: "CascadeConfig") -> str:
    """Return the fingerprint of the data that a stage trains on; of raw corpora only the list of files is read."""
    where = where_of(stage, config)
    if dataset_kind(stage) != "raw":
        return open_clips(dataset_kind(stage), uris, config, where).fingerprint
    from videogen.data.datasets.frames import corpus_fingerprint

    return json_hash([corpus_fingerprint(uri) for uri in uris])


def where_of(stage: str, config: "CascadeConfig") -> str:
    """Return the SQL expression that selects the clips of a stage, "" for all of them.

    Raises:
        UserError: the stage trains on raw videos, which have no columns to select by.
    """
    training = config.stage_config(stage).training_settings()
    where = training.where if training is not None else ""
    if where and dataset_kind(stage) == "raw":
        raise UserError(
            f"{stage}.training.where is {where!r}, but stage {stage!r} trains on raw videos, which have no columns to "
            f"select by: leave it empty."
        )
    return where


def require_unchanged(
    dataset: "ClipDataset", stage: str, uris: Sequence[str], config: "CascadeConfig", expected: str
) -> None:
    """Raise `UserError` unless the data still has the fingerprint `expected` of when the run was planned."""
    found = data_fingerprint(stage, uris, config) if dataset_kind(stage) == "raw" else dataset.fingerprint
    if found != expected:
        raise UserError(
            f"The data of stage {stage!r} in {', '.join(uris)} has changed since this run began (fingerprint {found} "
            f"instead of {expected}): put it back as it was, or start the job again to train on what is there now."
        )


def open_clips(kind: "DatasetKind", uris: Sequence[str], config: "CascadeConfig", where: str = "") -> "ClipDataset":
    """Open the tables of latents (or, for "raw", the corpora) at `uris` as one dataset.

    Args:
        kind: kind of training data, see `DatasetKind`.
        uris: folders.
        config: the cascade, whose sizes and rates the clips must have.
        where: SQL expression over the columns of the tables; only rows for which it holds are in the dataset. Of no
            meaning for "raw".

    Raises:
        UserError: nothing suitable is there, latents of two encoders would mix, or `where` is wrong or leaves nothing.
    """
    from videogen.data.datasets.dataset import JoinedClips
    from videogen.data.datasets.frames import FrameDataset
    from videogen.data.datasets.latents_table import discover_tables, require_same_encoder

    if kind == "raw":
        return JoinedClips([FrameDataset.open(uri, config) for uri in uris])
    tables = [table for uri in uris for table in discover_tables(uri)]
    for table in tables:
        table.require_matches(config)
        require_same_encoder(table, tables[0].encoder_fingerprint, tables[0].uri)
    chosen = [table for table in tables if table.has_captions or kind == "any"]
    if not chosen:
        raise UserError(
            f"None of the latents in {', '.join(uris)} has captions: encode a corpus with --captions, or train only "
            f"stages that need none (interpolate, decode) with --stages."
        )
    return _selected(JoinedClips(chosen), where)


def _selected(clips: "JoinedClips", where: str) -> "ClipDataset":
    if not where:
        return clips
    selected = clips.select(where)
    if len(selected) == 0:
        raise UserError(f"`where` {where!r} leaves none of the {len(clips)} clips: loosen it.")
    return selected
