"""Data: from folders of videos to the rows that training reads, one package a subject.

In the order in which a clip passes through them, each package importing only those before it:

- `tables`: transactional parquet tables (plan, commit, publish, read);
- `video`: probing, decoding and writing video files;
- `sources`: folders, S3 prefixes and manifests of videos, with captions;
- `curation`: cutting into clips, scores, near duplicates, policies;
- `isolation`: decoding of untrusted videos in a child process;
- `datasets`: clips and latents as tables, and the datasets that training and evaluation read;
- `interchange`: import and export of WebDataset and Hugging Face data sets;
- `synthetic`: the moving-shapes world and the demonstration corpus.
"""
