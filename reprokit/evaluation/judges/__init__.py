"""Judge models as their own stage: each is loaded once, for the responses of all checkpoints."""
