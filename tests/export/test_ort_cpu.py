import json
import os
from pathlib import Path

import onnxruntime
import pytest
from torch import nn

from export.ort_cpu import OrtCpu
from ofa.device import Device, Timing
from ofa.errors import DeviceError


def test_every_model_is_timed_in_the_order_given(family):
    row = family.space.encode(family.space.smallest)
    blocks = [(slot, block) for slot, block in family.blocks(row) if block is not None]
    models = [(block.build().eval(), block.input_shape(slot.size(28))) for slot, block in blocks]
    seen = []
    device: Device = OrtCpu(rounds=2, burst_ms=0.1)
    timings = device.measure([*models, (nn.Identity(), (1, 4, 4))], lambda done, total: seen.append((done, total)))
    assert len(timings) == len(models) + 1
    assert all(isinstance(t, Timing) and t.median_ms > 0 and t.spread_ms >= 0 and t.repeats >= 2 for t in timings)
    n_steps = len(models) + 1 + 2
    assert seen == [(done, n_steps) for done in range(1, n_steps + 1)]


def test_nothing_to_measure():
    assert OrtCpu(rounds=1).measure([]) == []


def test_rounds_visit_all_models_in_changing_order(monkeypatch):
    visits = []
    monkeypatch.setattr("export.ort_cpu._Model.burst", lambda self: visits.append(id(self)) or self.times_ns.append(1))
    OrtCpu(rounds=6, burst_ms=1e-9).measure([(nn.Identity(), (1, n, n)) for n in range(1, 6)])
    rounds = [visits[i : i + 5] for i in range(5, len(visits), 5)]
    assert len(rounds) == 6
    assert all(set(order) == set(rounds[0]) for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def test_the_description_says_what_a_table_needs():
    description = OrtCpu(threads=1).description
    assert json.loads(json.dumps(description)) == description
    assert description["runtime_version"] == onnxruntime.__version__
    assert (description["device"], description["threads"], description["precision"]) == ("ort-cpu", 1, "float32")
    assert all(description.values())


def test_a_processor_is_named_also_where_there_is_no_proc(monkeypatch):
    monkeypatch.setattr("export.ort_cpu.Path", lambda _: Path("/nowhere/cpuinfo"))
    assert OrtCpu().description["processor"]


@pytest.mark.parametrize("threads", [0, -1, (os.cpu_count() or 1) + 1, "2", 1.5])
def test_threads_out_of_range(threads):
    with pytest.raises(DeviceError, match=r"threads = .* choose from 1 to"):
        OrtCpu(threads=threads)


@pytest.mark.parametrize("options", [{"rounds": 0}, {"burst_ms": 0.0}, {"burst_ms": float("nan")}])
def test_nothing_timed_is_an_error(options):
    with pytest.raises(DeviceError, match="both must be positive"):
        OrtCpu(**options)
