import math

import numpy as np
import pytest
import torch

import ofa.evaluate.subnets
from ofa.core.errors import CheckpointError, DataError, RunError, SpaceError
from ofa.cost.counted import count_macs
from ofa.data.loaders import eval_batches
from ofa.evaluate.calibrate import calibrate, calibrate_all
from ofa.evaluate.subnets import evaluate_subnets
from ofa.pipeline import evaluate as pipeline
from ofa.pipeline.accuracy_store import AccuracyStore, read_samples
from ofa.pipeline.evaluate import evaluate
from ofa.pipeline.level_files import accuracy_measure
from ofa.pipeline.run import open_run


@pytest.fixture
def run(finished):
    return open_run(finished)


@pytest.fixture
def archs(run):
    """Archs of both resolutions, mixed, two of them twice."""
    rows = run.family.space.sample(3, np.random.default_rng(3))
    drawn = [run.family.space.decode(row) for row in rows]
    mixed = [run.family.space.largest, drawn[0], run.family.space.smallest, *drawn, run.family.space.largest]
    assert len({arch["resolution"] for arch in mixed}) == 2
    return mixed


@pytest.mark.parametrize(("split", "limit"), [("validation", None), ("test", 100)])
def test_scores_are_those_of_a_plain_loop_over_an_extracted_network(run, archs, split, limit):
    result = evaluate(run, archs, split, max_images=limit, calibration_images=50)
    images = getattr(run.data, split)
    supernet = run.supernet()
    assert result["images"] == min(limit or len(images), len(images))
    for arch, entry in zip(archs, result["archs"], strict=True):
        network, resolution = supernet.extract(arch), int(arch["resolution"])
        calibrate(network, eval_batches(run.data, run.data.train, resolution, limit=50))
        top1, top5, losses = 0, 0, []
        for batch, labels in eval_batches(run.data, images, resolution, batch_size=40, limit=limit):
            with torch.no_grad():
                every = network(batch).tolist()
            for logits, label in zip(every, labels.tolist(), strict=True):
                ranked = sorted(range(len(logits)), key=logits.__getitem__, reverse=True)
                top1 += ranked[0] == label
                top5 += label in ranked[:5]
                losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
        assert entry["arch"] == dict(arch)
        assert entry["top1_percent"] == pytest.approx(100 * top1 / len(losses))
        assert entry["top5_percent"] == pytest.approx(100 * top5 / len(losses))
        assert entry["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert entry["macs_m"] == pytest.approx(count_macs(network, run.family.input_shape(arch)) / 1e6)
        assert entry["params_m"] == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6)


def test_what_the_sample_stage_measured_is_measured_again(run):
    samples = read_samples(run)
    result = evaluate(run, list(samples), max_images=run.recipe.sample.images)
    assert [(entry["top1_percent"], entry["loss"]) for entry in result["archs"]] == list(samples.values())
    store = AccuracyStore(run, "again.json", accuracy_measure(run))
    assert store.measure("float32", list(samples), lambda done, message: None) == samples


def test_each_arch_once_by_resolution_and_in_the_order_given(run, archs):
    def scored(some):
        return evaluate_subnets(run.supernet(), some, run.data, run.data.test, calibration_images=64, max_images=10)

    order = [arch for arch, _ in scored(archs)]
    once = list(dict.fromkeys(archs))
    assert len(order) == len(once) < len(archs)
    assert order == sorted(once, key=lambda arch: arch["resolution"])  # a stable sort
    told = []
    entries = evaluate(run, archs, max_images=10, progress=lambda done, total, _: told.append((done, total)))["archs"]
    assert told == [(i + 1, len(once)) for i in range(len(once))]
    assert [entry["arch"] for entry in entries] == [dict(arch) for arch in archs]
    parts = [part for rank in (0, 1) for part in scored(order[rank::2])]
    assert dict(parts) == dict(scored(archs))


@pytest.mark.parametrize("split", pipeline.SPLITS)
def test_batchnorm_sees_training_images_whatever_the_split(run, archs, split, monkeypatch):
    prepared, calibrated = [], []

    def prepare(data, images, resolution, limit=None):
        prepared.append((images, resolution, limit, eval_batches(data, images, resolution, limit=limit)))
        return prepared[-1][-1]

    def spy(networks, batches):
        calibrated.extend([batches] * len(networks))
        calibrate_all(networks, batches)

    monkeypatch.setattr(ofa.evaluate.subnets, "eval_batches", prepare)
    monkeypatch.setattr(ofa.evaluate.subnets, "calibrate_all", spy)
    evaluate(run, archs, split, max_images=20)
    judged = getattr(run.data, split)
    assert [call[1:3] for call in prepared] == [(12, 64), (12, 20), (16, 64), (16, 20)]  # once per resolution
    assert all(call[0] is images for call, images in zip(prepared, [run.data.train, judged] * 2, strict=True))
    of_train = [prepared[0][3], prepared[2][3]]
    assert len(calibrated) == len(set(archs))
    assert all(any(batches is own for own in of_train) for batches in calibrated)


def test_a_limit_above_the_split_is_all_of_it(run):
    smallest = [run.family.space.smallest]
    assert evaluate(run, smallest, "test", max_images=10**6) == evaluate(run, smallest, "test")


def test_what_cannot_be_evaluated(run, finished):
    smallest = [run.family.space.smallest]
    with pytest.raises(DataError, match="unknown split 'labels'; choose from train, validation, test"):
        evaluate(run, smallest, "labels")
    with pytest.raises(SpaceError, match="the list of archs is empty"):
        evaluate(run, [])
    weights = finished / "supernet.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"supernet\.safetensors"):
        evaluate(run, smallest)
    (finished / "stages.json").unlink()
    with pytest.raises(RunError, match=r"'evaluate' needs the 'train' stage of .*; run `ofa train` first"):
        evaluate(run, smallest)
