"""Latency predicted by tables against latency measured on the device."""
