"""Devices that run models, and the protocol that measures latency on them."""
