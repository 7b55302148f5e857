"""Labelled images: data sets, splits, transforms and loaders."""
