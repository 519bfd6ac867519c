"""Synthetic data: the moving-shapes world and the demonstration corpus."""

from videogen.data.synthetic._corpus import HELD_OUT_CAMERA_CLIP, CorpusSize, camera_clips, make_corpus
from videogen.data.synthetic._moving_shapes import (
    COLOURS,
    DIRECTIONS,
    FPS,
    NUM_FRAMES,
    RADIUS_RANGE,
    SHAPES,
    SIZE,
    SPEEDS,
    Attributes,
    all_attributes,
    held_out_captions,
    parse_caption,
    render_clip,
    train_captions,
)

__all__ = [
    "COLOURS",
    "DIRECTIONS",
    "FPS",
    "HELD_OUT_CAMERA_CLIP",
    "NUM_FRAMES",
    "RADIUS_RANGE",
    "SHAPES",
    "SIZE",
    "SPEEDS",
    "Attributes",
    "CorpusSize",
    "all_attributes",
    "camera_clips",
    "held_out_captions",
    "make_corpus",
    "parse_caption",
    "render_clip",
    "train_captions",
]
