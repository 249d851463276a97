"""Reading and checking answers: what several benchmarks share."""
