"""Text-to-video service: the OpenAI Videos API in front of one autoscaled Ray Serve deployment per stage.

Modules from the wire inwards: `protocol` (messages), `requests` (validation), `api` (routes), `job_store` (durable
jobs), `dispatcher` (scheduling), `graph` (path of a job through the stages), `deployments` and `batcher` (one stage),
`launch` (start and stop).
"""
