"""Foundations without knowledge of networks: errors, files, tensors, configuration, processes."""
