"""Search algorithms over matrices of archs, and Pareto tools."""
