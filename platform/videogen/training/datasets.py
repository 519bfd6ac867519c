"""Which clips an objective trains on: captioned latents, all latents, or frames of the corpus itself."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from videogen.errors import UserError

if TYPE_CHECKING:
    from videogen.config import CascadeConfig
    from videogen.data import ClipDataset
    from videogen.training.objective import DatasetKind


def dataset_kind(stage: str) -> "DatasetKind":
    """Return what a stage trains on, without building its objective."""
    if stage == "autoencoder":
        return "raw"
    return "any" if stage in ("interpolate", "decode") else "captioned"


def data_fingerprint(stage: str, uris: Sequence[str], config: "CascadeConfig") -> str:
    """Return a hash of the data that a stage would train on; of raw corpora only the list of files is read."""
    if dataset_kind(stage) != "raw":
        return open_clips(dataset_kind(stage), uris, config).fingerprint
    from videogen.data import list_videos

    files = [[video.path, video.version] for uri in uris for video in list_videos(uri)]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:20]


def open_clips(kind: "DatasetKind", uris: Sequence[str], config: "CascadeConfig") -> "ClipDataset":
    """Open the tables of latents (or, for "raw", the corpora) at `uris` as one dataset.

    Raises:
        UserError: nothing suitable is there, or latents of two encoders would mix.
    """
    from videogen.data import FrameDataset, JoinedClips, discover_tables, require_same_encoder

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
    return JoinedClips(chosen)
