"""Noise schedule, conditioning and guided sampling, shared by training and generation."""
