"""Curation: how a video is cut into clips, what each clip scores, and which clips are kept.

Scoring and deciding are apart: scores of every clip are stored, and a policy over them can change without decoding
anything again.
"""
