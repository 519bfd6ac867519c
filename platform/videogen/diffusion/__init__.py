"""Noise schedule, conditioning and guided sampling that training and every way of generating share."""
