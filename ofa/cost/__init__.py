"""Costs: anything known of an arch without running the whole model, over matrices of archs at once."""

from ofa.cost.counted import macs_m as macs_m
from ofa.cost.counted import params_m as params_m
from ofa.cost.energy import PowerConfig as PowerConfig
from ofa.cost.energy import Rapl as Rapl
from ofa.cost.energy import energy_mj as energy_mj
from ofa.cost.energy import measure_energy_mj as measure_energy_mj
from ofa.cost.measure import MeasureConfig as MeasureConfig
from ofa.cost.measure import measure as measure
from ofa.cost.memory import peak_activation_mib as peak_activation_mib
from ofa.cost.memory import size_mib as size_mib
from ofa.cost.profile import TableConfig as TableConfig
from ofa.cost.profile import adapt as adapt
from ofa.cost.profile import profile as profile
from ofa.cost.profile import reference as reference
from ofa.cost.slots import SlotSum as SlotSum
from ofa.cost.table import LatencyTable as LatencyTable
from ofa.cost.table import Prediction as Prediction
