"""Reading of large data sets: memory of evaluation."""
