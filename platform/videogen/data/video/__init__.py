"""Videos: probing, decoding, and writing mp4 files."""
