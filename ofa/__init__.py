"""Train one elastic supernet, then deploy the best subnet of it for every target.

    family = ofa.create_family("hybrid_small", num_classes=10)   # or list_families("*mobile*"), Family.from_builder
    supernet = ofa.Supernet(family)                              # subnet(arch), extract(arch), save(path), load(path)
    history = ofa.train(supernet, data, config, folder=folder)   # or `ofa run RECIPE`, all stages at once
    run = ofa.open_run("runs/digits")                            # supernet(), network(arch), target().latency_table()
    metrics = ofa.evaluate(run.network(arch), batches)           # calibrate(network, batches) re-estimates BatchNorm
    table = ofa.profile(family, ofa.create_device("ort-cpu"), rng)        # latency; macs_m, params_m, size_mib, ...
    front = ofa.search(space, [Objective(...)], [Constraint(...)], rng)   # archs as rows of an index matrix
    ofa.export_onnx(run.network(arch), family.input_shape(arch), path)    # compared with PyTorch on request

Names are imported when first used, so that `import ofa` and the runtime on a device do without torch.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa.core.errors import OfaError as OfaError
    from ofa.core.prediction import Prediction as Prediction
    from ofa.cost.counted import macs_m as macs_m
    from ofa.cost.counted import params_m as params_m
    from ofa.cost.counted import peak_activation_mib as peak_activation_mib
    from ofa.cost.counted import size_mib as size_mib
    from ofa.cost.energy import energy_mj as energy_mj
    from ofa.cost.latency.profile import profile as profile
    from ofa.cost.latency.table import LatencyTable as LatencyTable
    from ofa.data.config import AugmentConfig as AugmentConfig
    from ofa.data.config import DataConfig as DataConfig
    from ofa.data.dataset import Data as Data
    from ofa.data.load import list_data as list_data
    from ofa.data.load import load_data as load_data
    from ofa.data.loaders import eval_batches as eval_batches
    from ofa.devices.registry import create_device as create_device
    from ofa.devices.registry import list_devices as list_devices
    from ofa.evaluate.calibrate import calibrate as calibrate
    from ofa.evaluate.metrics import evaluate as evaluate
    from ofa.pipeline.run import open_run as open_run
    from ofa.search.algorithm import search as search
    from ofa.search.problem import Constraint as Constraint
    from ofa.search.problem import Objective as Objective
    from ofa.space.arch import Arch as Arch
    from ofa.space.choice import Choice as Choice
    from ofa.space.search_space import SearchSpace as SearchSpace
    from ofa.supernet.family import Family as Family
    from ofa.supernet.importing import import_checkpoint as import_checkpoint
    from ofa.supernet.registry import create_family as create_family
    from ofa.supernet.registry import list_families as list_families
    from ofa.supernet.slot import Slot as Slot
    from ofa.supernet.supernet import Supernet as Supernet
    from ofa.train.config import TrainConfig as TrainConfig
    from ofa.train.trainer import train as train

__version__ = "0.1.0"

_HOMES = {
    "core.errors": ["OfaError"],
    "core.prediction": ["Prediction"],
    "cost.counted": ["macs_m", "params_m", "peak_activation_mib", "size_mib"],
    "cost.energy": ["energy_mj"],
    "cost.latency.profile": ["profile"],
    "cost.latency.table": ["LatencyTable"],
    "data.config": ["AugmentConfig", "DataConfig"],
    "data.dataset": ["Data"],
    "data.load": ["list_data", "load_data"],
    "data.loaders": ["eval_batches"],
    "devices.registry": ["create_device", "list_devices"],
    "evaluate.calibrate": ["calibrate"],
    "pipeline.run": ["open_run"],
    "search.problem": ["Constraint", "Objective"],
    "space.arch": ["Arch"],
    "space.choice": ["Choice"],
    "space.search_space": ["SearchSpace"],
    "supernet.family": ["Family"],
    "supernet.importing": ["import_checkpoint"],
    "supernet.registry": ["create_family", "list_families"],
    "supernet.slot": ["Slot"],
    "supernet.supernet": ["Supernet"],
    "train.config": ["TrainConfig"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_CALLABLE_PACKAGES = ("evaluate", "search", "train")
_PACKAGES = (*_CALLABLE_PACKAGES, "predict")
_PUBLIC = "ofa.public"
"""Entry-point group of names that other packages add to this one, such as `export_onnx`."""

__all__ = ["__version__", *_PACKAGES, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"ofa.{name}")
    if name in _HOME:
        return getattr(import_module(f"ofa.{_HOME[name]}"), name)
    if name.startswith("_"):  # what tools ask every object for
        raise AttributeError(f"module 'ofa' has no attribute {name!r}")
    for point in entry_points(group=_PUBLIC, name=name):
        return point.load()
    from ofa.core.errors import nearest

    raise AttributeError(f"module 'ofa' has no attribute {name!r}; {nearest(name, __dir__(), 40)}")


def __dir__() -> list[str]:
    return sorted([*__all__, *entry_points(group=_PUBLIC).names])
