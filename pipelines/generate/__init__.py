"""Batch generation: a prompts table to mp4 files and a manifest, on Ray Data."""
