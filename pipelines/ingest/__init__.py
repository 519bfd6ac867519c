"""Ingesting: a corpus of raw videos to a table of clips, on Ray Data."""
