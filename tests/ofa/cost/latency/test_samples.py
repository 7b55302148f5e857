import json

import pytest

from ofa.core.errors import TableError
from ofa.cost.latency.samples import SampleFile
from ofa.devices.estimator import Burst

SUBJECT = {"family": {"name": "small", "options": {"resolutions": (12, 16)}}, "device": {"threads": 1}}


@pytest.fixture
def path(tmp_path):
    file = SampleFile(tmp_path / "samples.json", SUBJECT)
    file.samples["overhead"] = [Burst(0.5, 1.0, 0), Burst(0.6, 1.1, 2)]
    file.save()
    return tmp_path / "samples.json"


def test_samples_are_read_as_they_were_saved(path):
    samples = SampleFile(path, SUBJECT).samples
    assert samples == {"overhead": [Burst(0.5, 1.0, 0), Burst(0.6, 1.1, 2)]}
    assert samples["overhead"][1].session == 2
    content = json.loads(path.read_text())
    assert list(content) == ["format", "version", "family", "device", "samples"]
    assert content["samples"] == {"overhead": [[0.5, 1.0, 0], [0.6, 1.1, 2]]}


def test_the_file_is_written_only_if_there_are_new_bursts(path):
    file = SampleFile(path, SUBJECT)
    path.unlink()
    file.samples["other"] = []
    file.save()
    file.samples["other"].append(Burst(1.0, 1.0, 0))
    file.save()
    assert list(SampleFile(path, SUBJECT).samples) == ["overhead", "other"]
    path.unlink()
    file.save()
    assert not path.exists()


def test_without_a_path_nothing_is_written(tmp_path):
    file = SampleFile(None, SUBJECT)
    file.samples["overhead"] = [Burst(0.5, 1.0, 0)]
    file.save()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["device"].update(threads=2), "samples of another family or device; remove it"),
        (lambda content: content["family"].update(name="other"), "samples of another family or device; remove it"),
        (lambda content: content.update(version=1), "samples of another family or device; remove it"),
        (lambda content: content.update(format="x"), "samples of another family or device; remove it"),
        (lambda content: content.pop("device"), "not a readable file of samples"),
        (lambda content: content.pop("samples"), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[3]), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[["a", 1, 0]]), "not a readable file of samples"),
        (lambda content: content["samples"].update(overhead=[[1.0, 1.0]]), "not a readable file of samples"),
    ],
)
def test_wrong_samples_are_one_error_that_names_the_file(path, change, message):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match=message) as caught:
        SampleFile(path, SUBJECT)
    assert str(path) in str(caught.value)


def test_a_damaged_file_is_one_error(path):
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TableError, match="not a readable file of samples"):
        SampleFile(path, SUBJECT)
