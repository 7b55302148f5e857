import os

import pytest

from export.silence import silent


def test_what_libraries_write_inside_goes_nowhere_and_what_comes_before_and_after_is_there(capfd):
    os.write(1, b"before ")
    with silent():
        os.write(1, b"out ")
        os.write(2, b"err ")
    os.write(1, b"after")
    os.write(2, b"error")
    assert capfd.readouterr() == ("before after", "error")


def test_the_streams_come_back_after_an_error(capfd):
    with pytest.raises(ValueError, match="inside"), silent():
        raise ValueError("inside")
    os.write(1, b"here")
    assert capfd.readouterr().out == "here"
