"""Devices that run models, and the protocol that measures latencies on them."""
