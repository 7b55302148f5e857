"""Devices, one file per runtime."""
