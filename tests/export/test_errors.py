from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import check_choice, check_number, local_path, one_line
from ofa.core.errors import BundleError, DeviceError, ExportError


@given(st.text())
def test_any_message_becomes_one_line(message):
    with pytest.raises(DeviceError) as caught, one_line(DeviceError, "it fails", "try again"):
        raise RuntimeError(message)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("it fails: ")
    assert str(caught.value).endswith("; try again")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : no\nmemory.", "no memory"),
        ("no operator. Please feel free to request support", "no operator"),
        ("no operator  [Caused by the value '11 defined in (%11 ...", "no operator"),
        ("", "RuntimeError"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_messages_of_runtimes_are_shortened(message, line):
    with pytest.raises(ExportError) as caught, one_line(ExportError, "it", lambda shown: f"<{shown}>"):
        raise RuntimeError(message)
    assert str(caught.value) == f"it: {line}; <{line}>"


@pytest.mark.parametrize("error", [BundleError("mine"), FileNotFoundError("theirs"), KeyboardInterrupt()])
def test_errors_that_are_for_users_already_pass(error):
    with pytest.raises(type(error)) as caught, one_line(DeviceError, "it fails", "try again"):
        raise error
    assert caught.value is error


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.booleans() | st.text() | st.none())
def test_numbers_are_checked_by_type_and_range(value):
    allowed = type(value) in (int, float) and 1 <= value <= 5
    for whole in (False, True):
        if allowed and (type(value) is int or not whole):
            check_number("n", value, 1, 5, whole=whole)
        else:
            with pytest.raises(BundleError, match=r"n = .* is not allowed; give a .*number from 1 to 5"):
                check_number("n", value, 1, 5, whole=whole, kind=BundleError)


def test_a_choice_is_one_of_those_allowed():
    check_choice("precision", "float32", ("float32", "int8"))
    check_choice("in_channels", 1, (1, 3))
    with pytest.raises(BundleError, match="in_channels = True is not known; choose from 1, 3"):
        check_choice("in_channels", True, (1, 3), kind=BundleError)
    for value in ("int4", None, ["float32"], 5):
        with pytest.raises(DeviceError, match=r"precision = .* is not known; choose from float32, int8"):
            check_choice("precision", value, ("float32", "int8"))


def test_a_tilde_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/token") == Path("/home/me/token")
    assert local_path(Path("a/~b")) == Path("a/~b")
