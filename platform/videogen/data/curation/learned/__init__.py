"""Scores and captions by networks: plug-ins that run on weights which you bring, read from a folder of safetensors.

Each is made by `from_pretrained(uri)` and called with the frames of a clip, uint8 RGB (F, h, w, 3), as sample frames
come from `analyse_request`. The same weights, frames and device give the same answer.
"""

from videogen.data.curation.learned.aesthetic import AestheticScore
from videogen.data.curation.learned.captioner import Captioner
from videogen.data.curation.learned.embedding import ClipEmbedding
from videogen.data.curation.learned.weights import fingerprint

__all__ = ["AestheticScore", "Captioner", "ClipEmbedding", "fingerprint"]
