"""Proof of training: inherited against trained alone, and strategies at equal cost. `python -m benchmarks.training`."""
