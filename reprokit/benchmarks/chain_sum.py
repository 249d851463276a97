"""Sums and differences of a few numbers (reasoning-gym): out of the domain of the Countdown rows."""

from reprokit.benchmarks.grading.procedural import benchmark

BENCHMARK = benchmark("chain_sum", "Chain sum", size=200, min_terms=2, max_terms=3, min_digits=1, max_digits=2)
