"""Data: the moving-shapes world, video reading, clips, and the tables of latents that training reads."""

from videogen.data.datasets.clips import Clip, ClipSpec, Failure, plan_clips
from videogen.data.datasets.dataset import ClipDataset, JoinedClips
from videogen.data.datasets.frames import FrameDataset
from videogen.data.datasets.latents_table import (
    LatentsTable,
    discover_tables,
    encoder_fingerprint,
    require_same_encoder,
)
from videogen.data.video import VideoError, VideoInfo, probe, read_frames, resize_frames, write_mp4

__all__ = [
    "Clip",
    "ClipDataset",
    "ClipSpec",
    "Failure",
    "FrameDataset",
    "JoinedClips",
    "LatentsTable",
    "VideoError",
    "VideoInfo",
    "discover_tables",
    "encoder_fingerprint",
    "plan_clips",
    "probe",
    "read_frames",
    "require_same_encoder",
    "resize_frames",
    "write_mp4",
]
