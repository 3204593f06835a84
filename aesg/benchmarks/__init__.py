"""Benchmarks: contestants that must agree first and are then timed in turn in one process."""
