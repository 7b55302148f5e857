import copy
import pickle
from collections.abc import Mapping

import pytest

from ofa.space.arch import Arch

VALUES = {"resolution": 16, "width": 0.5, "depth": 1}


def test_an_arch_is_a_mapping_that_compares_by_value():
    arch = Arch(VALUES)
    assert isinstance(arch, Mapping)
    assert (list(arch), arch["width"], len(arch)) == (["resolution", "width", "depth"], 0.5, 3)
    assert arch == VALUES == dict(arch)
    assert arch == Arch(dict(reversed(VALUES.items())))
    assert hash(arch) == hash(Arch(dict(reversed(VALUES.items()))))
    assert arch != Arch(VALUES | {"depth": 2})
    with pytest.raises(KeyError):
        arch["kernel"]


def test_an_arch_prints_on_one_line_as_the_code_that_creates_it():
    arch = Arch({f"stage{i}.block{i}.kernel": i for i in range(60)})
    assert "\n" not in repr(arch)
    assert eval(repr(arch)) == arch


def test_an_arch_cannot_be_changed_by_mistake():
    arch = Arch(VALUES)
    with pytest.raises(AttributeError):
        arch.width = 1.0
    with pytest.raises(TypeError):
        arch["width"] = 1.0
    assert arch == VALUES


def test_an_arch_keeps_its_values_when_the_dict_it_was_created_from_changes():
    values = {"a": 1}
    arch = Arch(values)
    values["a"] = 2
    assert arch["a"] == 1


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda arch: pickle.loads(pickle.dumps(arch))])
def test_an_arch_can_be_copied_and_pickled(duplicate):
    assert duplicate(Arch(VALUES)) == Arch(VALUES)
