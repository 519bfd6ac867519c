"""Measures of finished videos and of single stages."""

from videogen.evaluation.measurement import Measurement, measure

__all__ = ["Measurement", "measure"]
