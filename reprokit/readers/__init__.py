"""Results files of other people's harnesses: a reader for each, and which one a file is for."""
