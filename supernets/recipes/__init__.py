"""Recipes that come with the families."""
