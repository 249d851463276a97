"""The shapes on disk: run directory, manifests, sample log, result records; atomic writes."""
