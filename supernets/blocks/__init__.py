"""Blocks that families are made of."""
