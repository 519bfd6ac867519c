"""Training of one stage: one loop, one DeepSpeed engine, one objective a stage."""
