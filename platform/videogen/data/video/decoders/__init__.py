"""Video decoders (decord, PyAV, torchcodec) behind one interface, and the choice among them."""

from videogen.data.video.decoders._base import Decoder, frames_at_once
from videogen.data.video.decoders._open_video import (
    AUTO,
    DECODERS,
    READS,
    OpenVideo,
    decoder_versions,
    open_video,
    require_decoder,
)

__all__ = [
    "AUTO",
    "DECODERS",
    "READS",
    "Decoder",
    "OpenVideo",
    "decoder_versions",
    "frames_at_once",
    "open_video",
    "require_decoder",
]
