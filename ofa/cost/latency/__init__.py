"""Latency tables: what is measured, and what is predicted from it."""
