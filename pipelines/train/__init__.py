"""Training: one stage on Ray Train, and the whole cascade as a graph of steps."""
