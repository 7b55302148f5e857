import numpy as np
import pytest

from ofa.core.gaussian_process import fit, smooth_and_linear


def test_a_sum_of_a_line_and_a_wave_is_learned_and_noise_is_told_apart():
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-2, 2, size=(120, 2))
    truth = 2 * inputs[:, 0] + np.sin(2 * inputs[:, 1])
    model = fit(smooth_and_linear(2, 1e-2, 10.0), inputs[:80], truth[:80] + 0.1 * rng.normal(size=80))
    assert np.sqrt(np.mean((model.predict(inputs[80:]) - truth[80:]) ** 2)) < 0.15
    assert np.exp(model.kernel_.theta[-1]) == pytest.approx(0.01, rel=0.7)
    beyond = model.predict(np.array([[6.0, 0.0]]))
    assert beyond[0] == pytest.approx(12, abs=1.5)  # by the linear part


def test_an_input_that_does_not_matter_gives_no_warning():
    inputs = np.random.default_rng(1).normal(size=(30, 2))
    fit(smooth_and_linear(2, 1e-2, 10.0), inputs, inputs[:, 0])
