"""Video files: probing, isolated copies, decoding to frames, writing mp4.

Everything here runs in the calling process. Videos of unknown origin go through `videogen.data.isolation`.
"""

from videogen.data.video._frames import DECODE_SPEC, DecodedClip, Size, read_clip, read_frames, resize_frames, write_mp4
from videogen.data.video._info import SUFFIXES, VideoError, VideoInfo, reason_of
from videogen.data.video._local_file import MAX_FILE_BYTES, local_file
from videogen.data.video._probe import MAX_PIXELS, probe
from videogen.data.video.decoders import READS, OpenVideo, decoder_versions, open_video, require_decoder

__all__ = [
    "DECODE_SPEC",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "READS",
    "SUFFIXES",
    "DecodedClip",
    "OpenVideo",
    "Size",
    "VideoError",
    "VideoInfo",
    "decoder_versions",
    "local_file",
    "open_video",
    "probe",
    "read_clip",
    "read_frames",
    "reason_of",
    "require_decoder",
    "resize_frames",
    "write_mp4",
]
