import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

import export.agent.worker
from export.agent.config import Limits
from export.agent.worker import Models
from export.http_server import RefusedError
from ofa.core.errors import DeviceError


def load(models, onnx):
    return models.answer({"do": "load"}, onnx)["model"]


def is_loaded(models, name):
    try:
        models.answer({"do": "run", "model": name, "n": 1}, b"")
    except RefusedError:
        return False
    return True


def test_models_are_loaded_run_and_forgotten(lab):
    models = Models(Limits())
    name = load(models, lab.small())
    assert name == hashlib.sha256(lab.small()).hexdigest()
    times_ms = models.answer({"do": "run", "model": name, "n": 3}, b"")["milliseconds"]
    assert len(times_ms) == 3
    assert all(0 < ms < 1000 for ms in times_ms)
    assert load(models, lab.small()) == name
    assert models.answer({"do": "forget"}, b"") == {"forgotten": 1}
    assert not is_loaded(models, name)


def test_models_that_were_run_longest_ago_are_dropped_first(lab):
    models = Models(Limits(max_models=3))
    names = [load(models, lab.small(seed)) for seed in range(3)]
    assert is_loaded(models, names[0])
    assert load(models, lab.small(1)) == names[1]  # loading it again counts as well
    names.append(load(models, lab.small(3)))
    assert [is_loaded(models, name) for name in names] == [True, True, False, True]


def test_models_and_inputs_fit_into_the_limit_together(lab):
    """Each model has an input of 4 MiB."""
    wide = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2**20])
    large = [lab.model(lab.doubling(), helper.make_node("Neg", ["x"], [f"z{i}"]), inputs=[wide]) for i in range(3)]
    for max_mib, loaded in ((13, [True, True, True]), (12, [False, True, True]), (8, [False, False, True])):
        models = Models(Limits(max_mib=max_mib))
        names = [load(models, onnx) for onnx in large]
        assert [is_loaded(models, name) for name in names] == loaded
    with pytest.raises(DeviceError, match=r"take \d+ bytes, more than 4194304; raise the agent's --max-mib"):
        load(Models(Limits(max_mib=4)), large[0])


def test_inputs_are_random_normal_at_batch_1(lab):
    models = Models(Limits())
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 30, 40]) for name in "xz"]
    add = helper.make_node("Add", ["x", "z"], ["y"])
    (model,) = (models._loaded[load(models, lab.model(add, inputs=inputs))],)
    x, z = model.feed["x"], model.feed["z"]
    assert x.shape == z.shape == (1, 30, 40)
    assert not np.array_equal(x, z)
    assert abs(x.std() - 1) < 0.1


def test_a_refused_model_gives_the_reason(lab):
    for message, onnx in lab.refused_models():
        with pytest.raises(DeviceError) as caught:
            load(Models(Limits(max_mib=8)), onnx)
        assert message in str(caught.value)


def test_operators_of_allowed_domains_run_also_in_functions(lab):
    models = Models(Limits())
    gelu = lab.model(lab.node("Gelu", domain="com.microsoft"), domains=("", "com.microsoft"))
    for onnx in (gelu, lab.inside_function(helper.make_node("Add", ["x", "x"], ["y"]))):
        assert is_loaded(models, load(models, onnx))


def test_a_model_that_does_not_run_is_one_line(lab):
    models = Models(Limits())
    reshape = helper.make_node("Reshape", ["x", "shape"], ["y"])
    onnx = lab.model(reshape, initializers=[helper.make_tensor("shape", TensorProto.INT64, [1], [7])])
    with pytest.raises(DeviceError, match=r"^ONNX Runtime cannot run the model: .*; check it$"):
        models.answer({"do": "run", "model": load(models, onnx), "n": 1}, b"")


def test_runs_that_take_too_long_are_refused_and_the_model_is_kept(lab):
    models = Models(Limits(max_seconds=0.3))
    for onnx, n in ((lab.slow(1), 10_000), (lab.slow(2000), 1)):
        name = load(models, onnx)
        with pytest.raises(RefusedError, match=r"that took more than 0\.3 s; ask for fewer runs") as caught:
            models.answer({"do": "run", "model": name, "n": n}, b"")
        assert caught.value.status == 422
    assert is_loaded(models, load(models, lab.slow(1)))


def test_the_session_has_the_threads_of_the_limits(monkeypatch, lab):
    threads = []
    session = export.agent.worker.session
    monkeypatch.setattr(export.agent.worker, "session", lambda onnx, n: threads.append(n) or session(onnx, n))
    monkeypatch.setattr("export.agent.config.os.cpu_count", lambda: 2)
    load(Models(Limits(threads=2)), lab.small())
    assert threads == [2]


@pytest.mark.parametrize(
    ("kind", "sizes", "shape"),
    [
        ("tensor(float)", ["batch", 3, 8], [1, 3, 8]),
        ("tensor(float)", [2, 3], [2, 3]),
        ("tensor(float)", [], []),
        ("tensor(float)", [None, 3], [1, 3]),
        ("tensor(float)", [1, "n"], None),
        ("tensor(float)", [1, 0], None),
        ("tensor(int64)", [1, 3], None),
    ],
)
def test_only_the_first_size_of_an_input_may_be_open(kind, sizes, shape):
    value = SimpleNamespace(name="x", type=kind, shape=sizes)
    if shape is None:
        with pytest.raises(DeviceError, match="input 'x' "):
            export.agent.worker._shape(value)
    else:
        assert export.agent.worker._shape(value) == shape
