"""Training a supernet: strategies say which archs a step trains, the loop does the rest."""

from ofa.train.config import TrainConfig as TrainConfig
from ofa.train.loop import train as train
