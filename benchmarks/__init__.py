"""Benchmarks: too slow for the tests, or compared with other projects. `python -m benchmarks.NAME` writes a page."""
