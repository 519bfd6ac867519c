"""Data: the moving-shapes world, video reading, clips, and the tables of latents that training reads."""
