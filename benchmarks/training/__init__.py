"""Inherited weights against training alone, and strategies at equal cost: `python -m benchmarks.training`."""
