"""Whether a conclusion follows from two statements, yes or no (reasoning-gym): out of the domain of Countdown."""

from reprokit.benchmarks.grading.procedural import benchmark

BENCHMARK = benchmark("syllogism", "Syllogism", size=200)
