"""Ray pipelines, one package a verb: ingest, encode, train, generate; over `runner` and `cluster`.

Packages re-export nothing, except for the functions of `cluster`: Ray workers import single modules, and start faster.
"""
