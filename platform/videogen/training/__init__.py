"""Training of one stage: loop, DeepSpeed engine, loader, checkpoints and metrics for any objective."""
