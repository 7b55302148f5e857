"""Families, one file each, their blocks, and the recipes that train them."""
