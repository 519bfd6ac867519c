"""The text-to-video service: the OpenAI Videos API in front of one autoscaled Ray Serve deployment a stage.

Read it from the wire inwards: `protocol` (what is said), `requests` (what is accepted), `api` (routes), `job_store`
(what is remembered), `dispatcher` (what runs next), `graph` (how a job walks through the stages), `deployments`
and `batcher` (how one stage runs), `launch` (how all of it is started).
"""
