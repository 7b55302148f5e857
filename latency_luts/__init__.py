"""Measured latency tables, one folder per device. `README.md` describes the format."""
