"""Latency tables: what is measured on a device, and the models that predict the latency of every arch from it."""
