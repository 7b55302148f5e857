import pytest

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data

FILE = """
from dataclasses import dataclass
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
import ofa

DIGITS = load_digits()

@dataclass
class Digits(Dataset):
    start: int
    stop: int

    def __len__(self):
        return self.stop - self.start

    def __getitem__(self, i):
        return DIGITS.images[self.start + i] / 16, int(DIGITS.target[self.start + i])

def data(n: int = 40):
    return ofa.Data("few", train=Digits(0, n), validation=Digits(n, 2 * n), test=Digits(2 * n, 3 * n))
"""


def test_a_function_in_a_file_gives_the_data(tmp_path):
    (tmp_path / "own.py").write_text(FILE)
    data = load_data(DataConfig(name=str(tmp_path / "own.py"), options={"n": 30}, workers=2, cache_mib=7))
    assert (data.name, len(data.train), data.in_channels, data.workers, data.cache_mib) == ("few", 30, 1, 2, 7)
    assert len(load_data(DataConfig(name=str(tmp_path / "own.py"))).test) == 40


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"own\.py defines no function data\(\.\.\.\)"),
        ("def data(n): return 3", r"data\(\.\.\.\) in .*own\.py returns a int; return an ofa\.Data"),
        ("def data(m): return 4", r"data\(\.\.\.\) in .*own\.py has no option 'n'"),
        ("def data(n): raise ValueError('bad n')", r"own\.py refuses the options \{'n': 4\}: bad n"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_error(tmp_path, text, problem):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(DataError, match=problem):
        load_data(DataConfig(name=str(tmp_path / "own.py"), options={"n": 4}))


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(DataError, match=r"no data file .*own\.py; give the path of a Python file that defines data"):
        load_data(DataConfig(name=str(tmp_path / "own.py")))
