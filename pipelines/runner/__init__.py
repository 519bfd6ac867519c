"""Resumable runs: plan, execute pending batches of work items, pack. Independent of any verb."""
