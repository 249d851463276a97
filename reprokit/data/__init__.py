"""Training rows, from files or generators, and their token ids."""
