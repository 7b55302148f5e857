"""Accuracy predictors, one file each, and how they are judged: `ofa.predict.create("auto", family)`."""

from ofa.predict.metrics import judge as judge
from ofa.predict.predictor import create as create
from ofa.predict.predictor import load as load
