"""Search and prediction judged on published tables: `python -m benchmarks.search --tables DIR`."""
