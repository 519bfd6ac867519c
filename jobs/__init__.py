"""Command-line jobs: `python jobs/<name>.py`, or `videogen <name>` once the project is installed."""
