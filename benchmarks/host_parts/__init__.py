"""The host's parts of the pipeline, measured separately and without device work."""
