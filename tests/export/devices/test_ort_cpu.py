import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest
from torch import nn

from export.devices.ort_cpu import OrtCpu, OrtRunner
from ofa.core.errors import DeviceError
from ofa.devices.device import Device, Model


def test_a_loaded_model_gives_the_time_of_each_run(family):
    device: Device = OrtCpu()
    (place,) = device.hosts
    row = family.space.row(family.space.smallest)
    for slot, block in family.blocks(row):
        if block is not None:
            times = place.load(Model(block.build, block.input_shape(slot.size(28))))(3)
            assert len(times) == 3
            assert all(0 < ms < 1000 for ms in times)


def test_runs_are_of_the_exported_model_and_the_first_is_not_timed(monkeypatch):
    runner = OrtCpu().load(Model(partial(nn.Linear, 5, 3), (5,)))
    (logits,) = runner.session.run(None, runner.feed)
    assert logits.shape == (1, 3)
    calls, ticks = [], iter(range(100))
    session = SimpleNamespace(run=lambda *_: calls.append(1))
    monkeypatch.setattr("export.devices.ort_cpu.time.perf_counter_ns", lambda: next(ticks) * 1_000_000)
    assert OrtRunner(session, {})(4) == [1.0] * 4
    assert len(calls) == 5


def test_the_description_says_what_a_table_needs():
    description = OrtCpu(threads=1).description
    assert json.loads(json.dumps(description)) == description
    assert description["runtime_version"] == onnxruntime.__version__
    assert (description["device"], description["threads"], description["precision"]) == ("ort-cpu", 1, "float32")
    assert all(description.values())


def test_a_processor_is_named_also_where_there_is_no_proc(monkeypatch):
    monkeypatch.setattr("export.devices.ort_cpu.Path", lambda _: Path("/nowhere/cpuinfo"))
    assert OrtCpu().description["processor"]


@pytest.mark.parametrize("precision", ["int8_dynamic", "int8_static"])
def test_in_int8_the_quantized_model_is_timed(family, precision):
    device = OrtCpu(precision=precision)
    assert device.description["precision"] == precision
    row = family.space.row(family.space.smallest)
    blocks = [(block.build, block.input_shape(slot.size(28))) for slot, block in family.blocks(row) if block]
    for build, shape in [*blocks, (nn.Identity, (1, 1, 1)), (partial(nn.Linear, 16, 16), (5, 16))]:
        runner, plain = device.load(Model(build, shape)), OrtCpu().load(Model(build, shape))
        (got,), (wanted,) = (each.session.run(None, each.feed) for each in (runner, plain))
        assert got.shape == wanted.shape
        assert (got == wanted).all() == (build is nn.Identity)
        assert len(runner(2)) == 2


def test_an_unknown_precision():
    with pytest.raises(
        DeviceError, match=r"ort-cpu: precision = 'int4' is not known; choose from float32, int8_dynamic"
    ):
        OrtCpu(precision="int4")


@pytest.mark.parametrize("threads", [0, -1, (os.cpu_count() or 1) + 1, "2", 1.5])
def test_threads_out_of_range(threads):
    with pytest.raises(DeviceError, match=r"threads = .* choose from 1 to"):
        OrtCpu(threads=threads)
