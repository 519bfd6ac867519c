"""Cascade report: one self-contained page about a trained cascade, written by jobs/report.py."""
