"""Encoding: raw videos or a clips table to a table of latents, on Ray Data."""
