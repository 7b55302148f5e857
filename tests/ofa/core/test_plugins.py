import pytest

from ofa.core.errors import DeviceError, listed, nearest, one_line
from ofa.core.plugins import call_plugin, load_plugin, plugin_names


def test_names_of_a_group_are_sorted_and_filtered_by_pattern():
    names = plugin_names("ofa.devices")
    assert names == sorted(names)
    assert plugin_names("ofa.devices", "ort-*") == [name for name in names if name.startswith("ort-")]
    assert plugin_names("ofa.nothing") == []


def test_a_plugin_is_what_its_entry_point_refers_to():
    from export.devices.ort_cpu import OrtCpu

    assert load_plugin("ofa.devices", "ort-cpu", "device", DeviceError) is OrtCpu


def test_an_unknown_plugin_gets_the_nearest_names_and_advice():
    with pytest.raises(DeviceError, match=r"^unknown device 'ort-cup'; did you mean ort-cpu.*\?; or buy one$"):
        load_plugin("ofa.devices", "ort-cup", "device", DeviceError, "; or buy one")
    with pytest.raises(DeviceError, match=r"^unknown device 'abacus'; choose from adb, "):
        load_plugin("ofa.devices", "abacus", "device", DeviceError)


def test_names_are_listed_up_to_a_limit():
    assert nearest("wide", ["width", "depth"]) == "did you mean width?"
    assert nearest("x", ["width", "depth"]) == "choose from width, depth"
    assert listed("abc", 3) == "a, b, c"
    assert listed("abcd", 3) == "a, b, c, ... (4 in all)"


def test_a_foreign_message_becomes_one_short_line():
    assert one_line(ValueError("first\n  second\tthird")) == "first second third"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 1000))) == 300


def test_a_function_is_called_with_its_options_and_tells_its_defaults():
    assert call_plugin(lambda n, scale=2: n * scale, {"n": 3}, "it", DeviceError) == (6, {"n": 3, "scale": 2})
    kept = call_plugin(lambda n=1, *rest, **others: (n, rest, others), {"color": "red"}, "it", DeviceError)
    assert kept == ((1, (), {"color": "red"}), {"n": 1, "color": "red"})
    with pytest.raises(DeviceError, match=r"^it requires the option 'n'; it takes n, \*\*others$"):
        call_plugin(lambda n, **others: n, {"color": "red"}, "it", DeviceError)
    with pytest.raises(DeviceError, match=r"^it has no option 'color'; choose from n$"):
        call_plugin(lambda n: n, {"color": "red"}, "it", DeviceError)
