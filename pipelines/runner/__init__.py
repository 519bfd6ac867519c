"""Resumable runs: plan, run pending work, pack and publish. Knows no verb."""
