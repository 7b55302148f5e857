"""Accuracy predictors, their metrics, and accuracies with less noise."""
