"""Families, one file each, the blocks they are made of, and the recipes that train them."""
