"""Accuracy predictors, and how they are judged."""
