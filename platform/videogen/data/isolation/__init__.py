"""Isolated decoding: untrusted videos are read in a child process with time and memory limits."""

from videogen.data.isolation._child import DecoderDiedError
from videogen.data.isolation._decoder import IsolatedDecoder, shared_decoder, video_limit_s

__all__ = ["DecoderDiedError", "IsolatedDecoder", "shared_decoder", "video_limit_s"]
