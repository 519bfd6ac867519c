"""Datasets: clips, latents and frames as training and evaluation read them."""
