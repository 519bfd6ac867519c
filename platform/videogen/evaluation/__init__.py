"""Evaluation: prompt faithfulness of generated videos, and PSNR of single stages on held-out clips."""

from videogen.evaluation.measurement import Measurement, measure

__all__ = ["Measurement", "measure"]
