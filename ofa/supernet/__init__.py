"""Blocks, slots and families; the supernet that shares weights among their networks."""
