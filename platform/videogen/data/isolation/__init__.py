"""Isolated decoding: reading untrusted videos in a child process with limits."""
