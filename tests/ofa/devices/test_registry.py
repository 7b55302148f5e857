import inspect

import pytest

from ofa.core import plugins
from ofa.core.errors import DeviceError
from ofa.core.plugins import load_plugin
from ofa.devices.registry import create_device, describe_devices, device_precisions, list_devices


class Toaster:
    """Runs models on bread; slowly.

    More about it.
    """

    def __init__(self, slots: int, crumbs: int = 3) -> None:
        self.slots, self.crumbs = slots + 0, crumbs
        if crumbs > 3:
            raise DeviceError("toaster: crumbs = 4 is not allowed")


class Point:
    def __init__(self, name, factory):
        self.name, self.factory = name, factory

    def load(self):
        return self.factory

    def __lt__(self, other):
        return self.name < other.name


NAMES = {"toaster", "boaster"}


@pytest.fixture
def toasters(monkeypatch):
    """Register a device under two names, and nothing else."""

    class Points(list):
        names = NAMES

    def entry_points(group, name=None):
        assert group == "ofa.devices"
        return Points(Point(known, Toaster) for known in sorted(NAMES, reverse=True) if name in (None, known))

    monkeypatch.setattr(plugins, "entry_points", entry_points)


@pytest.mark.usefixtures("toasters")
def test_a_device_is_created_with_its_options():
    device = create_device("toaster", slots=2)
    assert (type(device), device.slots, device.crumbs) == (Toaster, 2, 3)


@pytest.mark.usefixtures("toasters")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("toster", {}, "unknown device 'toster'; did you mean toaster or boaster?"),
        ("kettle", {}, "unknown device 'kettle'; choose from boaster, toaster"),
        ("toaster", {"slot": 2}, "device 'toaster' has no option 'slot'; did you mean slots?"),
        ("toaster", {}, "device 'toaster' requires the option 'slots'; it takes slots: int, crumbs: int = 3"),
        ("toaster", {"slots": "2"}, 'concatenate str (not "int") to str; it takes slots: int, crumbs: int = 3'),
        ("toaster", {"slots": 2, "crumbs": 4}, "toaster: crumbs = 4 is not allowed"),
    ],
)
def test_a_wrong_name_or_option_is_one_error_that_names_the_right_ones(name, options, message):
    with pytest.raises(DeviceError) as caught:
        create_device(name, **options)
    assert str(caught.value).endswith(message)


@pytest.mark.usefixtures("toasters")
def test_devices_are_listed_sorted_by_a_pattern_and_with_the_first_clause_of_their_docstring():
    assert list_devices() == ["boaster", "toaster"]
    assert list_devices("t*") == ["toaster"]
    assert list(describe_devices().items()) == [(name, "Runs models on bread") for name in ("boaster", "toaster")]


@pytest.mark.usefixtures("toasters")
def test_a_device_says_its_precisions_or_has_only_float32(monkeypatch):
    assert device_precisions("toaster") == ("float32",)
    monkeypatch.setattr(Toaster, "precisions", ("float32", "float16"), raising=False)
    assert device_precisions("toaster") == ("float32", "float16")
    with pytest.raises(DeviceError, match="unknown device 'toster'"):
        device_precisions("toster")


@pytest.mark.parametrize("name", ["openvino-cpu", "ort-cpu", "ort-cuda", "torch-cuda", "remote", "adb"])
def test_every_device_of_this_project_takes_what_it_says_as_its_option_precision(name):
    factory = load_plugin("ofa.devices", name, "device", DeviceError)
    assert inspect.signature(factory).parameters["precision"].default == device_precisions(name)[0] == "float32"


def test_the_devices_of_this_project_are_registered():
    assert {"adb", "ort-cpu", "remote"} <= set(list_devices())
    assert list_devices("ort-*") == ["ort-cpu", "ort-cuda"]
    with pytest.raises(DeviceError, match=r"device 'remote' requires the option 'urls'; it takes .*urls"):
        create_device("remote")
