"""Ray pipelines, one package a verb: ingest, encode, train, generate; over `runner` and `cluster`."""
