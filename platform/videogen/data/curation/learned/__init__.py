"""Learned scores and captions: CLIP embeddings, an aesthetic head and a captioner, on weights that users bring.

Each is made by `from_pretrained(uri)` from a folder of safetensors and called with the frames of a clip, uint8 RGB
(F, h, w, 3). The same weights, frames and device give the same answer.
"""

from videogen.data.curation.learned._aesthetic import AestheticScore
from videogen.data.curation.learned._captioner import Captioner
from videogen.data.curation.learned._embedding import ClipEmbedding, mean_direction
from videogen.data.curation.learned._weights import fingerprint

__all__ = ["AestheticScore", "Captioner", "ClipEmbedding", "fingerprint", "mean_direction"]
