"""Costs: anything known of an arch without running the whole model, over matrices of archs at once."""

from ofa.cost.counted import macs_m as macs_m
from ofa.cost.counted import params_m as params_m
from ofa.cost.networks import NetworkTable as NetworkTable
from ofa.cost.slots import SlotSum as SlotSum
from ofa.cost.table import LatencyTable as LatencyTable
from ofa.cost.table import load_table as load_table
