"""Reading of large data sets: memory of evaluation, many files, and the speed of loading."""
