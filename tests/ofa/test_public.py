"""The public face: what `dir(ofa)` lists, how it is imported, and how its functions are called."""

import inspect
import subprocess
import sys

import pytest

import ofa

FUNCTIONS = [name for name in dir(ofa) if name[0].islower() and callable(getattr(ofa, name))]


def test_the_names_that_a_reader_looks_for_are_public():
    expected = {
        *("create_family", "list_families", "create_device", "list_devices", "open_run", "train", "evaluate"),
        *("calibrate", "search", "Objective", "Constraint", "profile", "export_onnx", "macs_m", "params_m", "size_mib"),
        *("peak_activation_mib", "energy_mj", "Supernet", "Family", "LatencyTable", "predict"),
    }
    assert expected <= set(dir(ofa))
    assert all(hasattr(ofa, name) for name in dir(ofa))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_documented_and_take_at_most_three_positional_arguments_beyond_the_first(name):
    function = getattr(ofa, name)
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(positional) <= 4
    assert function.__doc__
    assert function.__doc__.strip().splitlines()[0].endswith((".", ":"))


def test_packages_that_are_called_stay_packages():
    import ofa.evaluate.metrics
    import ofa.search.algorithm
    import ofa.train.config
    import ofa.train.trainer

    assert inspect.signature(ofa.train) == inspect.signature(ofa.train.trainer.train)
    assert inspect.signature(ofa.search) == inspect.signature(ofa.search.algorithm.search)
    assert inspect.signature(ofa.evaluate) == inspect.signature(ofa.evaluate.metrics.evaluate)
    assert ofa.train.config.TrainConfig is ofa.TrainConfig


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(AttributeError, match="no attribute 'create_famly'; did you mean create_family"):
        _ = ofa.create_famly


def test_importing_it_imports_no_torch():
    program = "import sys, ofa; dir(ofa); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ofa"],
        pytest.param(["-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "ofa"], marks=pytest.mark.slow),
    ],
)
def test_files_of_the_user_with_our_names_change_nothing(tmp_path, command):
    (tmp_path / "export.py").write_text("raise SystemExit('the wrong export')")
    (tmp_path / "supernets").mkdir()
    (tmp_path / "supernets" / "__init__.py").write_text("raise SystemExit('the wrong supernets')")
    done = subprocess.run(
        [sys.executable, *command, "recipes", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"digits"' in done.stdout
