"""Synthetic data: the moving-shapes world and the demonstration corpus."""
