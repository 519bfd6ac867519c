"""Sources: folders, S3 prefixes and manifests of videos, with their captions."""
