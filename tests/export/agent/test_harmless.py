import pytest
from onnx import helper

from export.agent.harmless import check_harmless
from ofa.core.errors import DeviceError


def test_models_that_do_more_than_compute_are_refused_with_the_reason(lab):
    harmful = ("not an ONNX model", "own format", "domain 'mine'", "control flow", "a graph inside", "external data")
    models = [(message, onnx) for message, onnx in lab.refused_models() if message in harmful]
    assert {message for message, _ in models} == set(harmful)
    for message, onnx in models:
        with pytest.raises(DeviceError, match=message):
            check_harmless(onnx)


def test_models_that_only_compute_pass(lab):
    check_harmless(lab.small())
    check_harmless(lab.slow(3))
    check_harmless(lab.model(lab.node("Gelu", domain="com.microsoft"), domains=("", "com.microsoft")))
    check_harmless(lab.inside_function(helper.make_node("Add", ["x", "x"], ["y"])))


def test_models_cut_anywhere_pass_or_are_refused(lab):
    whole = lab.model(lab.doubling(), lab.node("Relu", name="r"), initializers=[lab.weights(2)])
    refused = 0
    for length in range(len(whole)):
        try:
            check_harmless(whole[:length])
        except DeviceError:
            refused += 1
    assert refused > len(whole) / 2
