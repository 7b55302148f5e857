"""Evaluation of networks: BatchNorm calibration and metrics."""
