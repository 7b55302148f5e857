import pytest

from export.session import session
from ofa.core.errors import DeviceError


def test_threads_and_order_are_set(levels):
    options = session(levels[0][1], threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


def test_no_threads_is_an_error(levels):
    with pytest.raises(DeviceError, match="threads = 0 is not allowed"):
        session(levels[0][1], threads=0)
