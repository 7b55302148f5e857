"""Labeled images: data sets, splits, transforms and loaders."""
