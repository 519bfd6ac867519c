"""Measures of finished videos and of single stages."""

from videogen.evaluation.world import Measurement, measure

__all__ = ["Measurement", "measure"]
