import json
import math
import os
import random
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import ofa
import ofa.train.checkpoints
import ofa.train.step
import ofa.train.trainer
from ofa.core.errors import CheckpointError, SpaceError, TrainError
from ofa.core.tensors import read_tensors, write_tensors
from ofa.cost.counted import macs_m
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.data.loaders import train_batches
from ofa.data.transforms import resize_center_crop
from ofa.evaluate.metrics import Metrics
from ofa.train.config import TrainConfig
from ofa.train.state import TrainingState
from ofa.train.stopping import Stopped

DIGITS = DataConfig(name="digits")
SEED = 2


@pytest.fixture(scope="module")
def data():
    """4 batches of 32 images an epoch."""
    digits = load_data(DIGITS)
    train_images, validation = digits.train.subset(np.arange(150)), digits.validation.subset(np.arange(50))
    return replace(digits, train=train_images, validation=validation)


def config(**options):
    phases = [{"strategy": "full", "epochs": 1}, {"strategy": "sandwich", "epochs": 1, "random": 1}]
    defaults = {
        "phases": phases,
        "batch_size": 32,
        "warmup_epochs": 0.5,
        "calibration_images": 32,
        "validated_archs": 1,
    }
    return TrainConfig(**defaults | {"checkpoint_seconds": 0.0} | options)


class Killed(BaseException):
    """Not an error that anything could handle."""


def quiet(done, total, message):
    pass


def train(supernet, data, settings, folder, on_progress=quiet, data_config=DIGITS, seed=SEED):
    return ofa.train.trainer.train(
        supernet,
        data,
        settings,
        folder=folder,
        augment=data_config.augment,
        workers=data_config.workers,
        seed=seed,
        macs_m=macs_m(supernet.family),
        on_progress=on_progress,
    )


def run(family, data, settings, folder, kill_at=(), data_config=DIGITS, seed=SEED):
    """Trains to the end, restarted after each kill, and returns the weights."""
    kills = list(kill_at)
    while True:
        supernet = ofa.Supernet(family, seed=0)

        def progress(done, *_):
            if kills and done == kills[0]:
                kills.pop(0)
                raise Killed

        try:
            train(supernet, data, settings, folder, progress, data_config, seed)
        except Killed:
            continue
        assert not kills
        return {name: tensor.clone() for name, tensor in supernet.network.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


SETTINGS = {
    "defaults": config(),
    "adamw, clipped, no average": config(optimizer="adamw", lr=0.003, clip_grad_norm=1.0, ema_decay=None),
    "muon": config(optimizer="muon", lr=0.02),
    "no distillation, contiguous": config(teacher="none", channels_last=False),
    "a checkpoint per epoch only": config(checkpoint_seconds=1e9),
}


@pytest.mark.parametrize("name", ["defaults", *(pytest.param(s, marks=pytest.mark.slow) for s in list(SETTINGS)[1:])])
def test_a_killed_and_resumed_training_ends_the_same_to_the_last_bit(tiny, data, tmp_path, name):
    settings = SETTINGS[name]
    whole = run(tiny, data, settings, tmp_path / "whole")
    kill_at = sorted(random.Random(name).sample(range(1, 9), 3))
    resumed = run(tiny, data, settings, tmp_path / "resumed", kill_at)
    assert_equal(whole, resumed)
    assert (tmp_path / "whole" / "train.jsonl").read_text() == (tmp_path / "resumed" / "train.jsonl").read_text()


@pytest.mark.parametrize("kill_at", [[], [3, 6]])
def test_it_does_not_depend_on_how_often_losses_are_read(tiny, data, tmp_path, monkeypatch, kill_at):
    whole = run(tiny, data, config(), tmp_path / "whole")
    monkeypatch.setattr(ofa.train.trainer, "_READ_EVERY", {"cpu": 3})
    rarely = run(tiny, data, config(), tmp_path / "rarely", kill_at)
    assert_equal(whole, rarely)
    assert (tmp_path / "whole" / "train.jsonl").read_text() == (tmp_path / "rarely" / "train.jsonl").read_text()


def test_it_does_not_depend_on_workers_or_on_the_global_generators(tiny, data, tmp_path):
    settings = config(phases=[{"strategy": "sandwich", "epochs": 1, "random": 1}])
    whole = run(tiny, data, settings, tmp_path / "a")
    torch.manual_seed(8)
    random.seed(8)
    before = torch.get_rng_state(), random.getstate()
    assert_equal(whole, run(tiny, data, settings, tmp_path / "b", data_config=DataConfig(name="digits", workers=1)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    other = run(tiny, data, settings, tmp_path / "c", seed=3)
    assert not torch.equal(whole["stem.conv.weight"], other["stem.conv.weight"])


def test_a_finished_training_is_not_trained_again(tiny, data, tmp_path):
    settings = config(phases=[{"strategy": "full", "epochs": 1}])
    first = run(tiny, data, settings, tmp_path)
    steps = []
    supernet = ofa.Supernet(tiny, seed=0)
    train(supernet, data, settings, tmp_path, lambda done, total, message: steps.append(done))
    assert not steps
    assert_equal(first, supernet.network.state_dict())


def test_a_broken_newest_checkpoint_is_skipped_with_a_warning(tiny, data, tmp_path):
    whole = run(tiny, data, config(), tmp_path / "whole")
    with pytest.raises(Killed):
        train(ofa.Supernet(tiny, seed=0), data, config(), tmp_path / "b", kill_after(6))
    newest = max((tmp_path / "b" / "checkpoints").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"step-00000005\.safetensors is missing, truncated .*resuming from step 4"):
        resumed = run(tiny, data, config(), tmp_path / "b")
    assert_equal(whole, resumed)


def kill_after(step):
    def progress(done, *_):
        if done == step:
            raise Killed

    return progress


def test_only_broken_checkpoints_are_an_error(tiny, data, tmp_path):
    with pytest.raises(Killed):
        train(ofa.Supernet(tiny), data, config(), tmp_path, kill_after(3))
    for path in (tmp_path / "checkpoints").glob("step-*"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read"):
        train(ofa.Supernet(tiny), data, config(), tmp_path)


def plain_training(family, data, settings):
    """The same training, written out: one phase of sandwiches without an average, schedule and losses by formula."""
    supernet = ofa.Supernet(family, seed=0).train()
    space, total = family.space, len(data.train) // settings.batch_size
    parameters = dict(supernet.network.named_parameters())
    velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}
    log = []
    batches = train_batches(
        data, DIGITS.augment, resolution=lambda _: 16, batch_size=settings.batch_size, seed=SEED, steps=range(total)
    )
    for step, (images, labels) in enumerate(batches):
        rng = np.random.default_rng((SEED, step))
        torch.manual_seed(int(rng.integers(2**31)))  # for dropout
        archs = [space.largest, space.smallest, *(space.decode(row) for row in space.sample(1, rng))]
        supernet.zero_grad()
        losses, teacher = [], None
        for arch in archs:
            subnet = supernet.subnet(arch)
            subnet.get_submodule("head.dropout").train(teacher is None or settings.teacher == "none")
            logs = F.log_softmax(subnet(resize_center_crop(images, 16)), dim=1)
            targets = 0.9 * F.one_hot(labels, 10) + 0.01
            if settings.teacher == "largest" and teacher is not None:
                targets = targets + teacher
            loss = -(targets * logs).sum(dim=1).mean()
            loss.backward()
            losses.append(loss.item())
            teacher = logs.detach().exp() if teacher is None else teacher
        lr = settings.lr * (1 + math.cos(math.pi * step / total)) / 2
        with torch.no_grad():
            for name, p in parameters.items():
                gradient = p.grad + (settings.weight_decay * p if p.dim() > 1 else 0)
                velocity[name] = settings.momentum * velocity[name] + gradient
                p -= lr * (gradient + settings.momentum * velocity[name])
        log.append(losses)
    return supernet.network.state_dict(), np.mean(log, axis=0)


@pytest.mark.parametrize("teacher", ["largest", "none"])
def test_training_is_what_a_plain_loop_does(tiny, data, tmp_path, teacher):
    phases = [{"strategy": "sandwich", "epochs": 1, "random": 1}]
    settings = config(
        phases=phases,
        teacher=teacher,
        ema_decay=None,
        warmup_epochs=0.0,
        channels_last=False,
        weight_decay=0.01,
        lr=0.02,
    )
    trained = run(tiny, data, settings, tmp_path)
    with torch.random.fork_rng():
        plain, losses = plain_training(tiny, data, settings)
    start = ofa.Supernet(tiny, seed=0).network.state_dict()
    names = [name for name, tensor in start.items() if tensor.is_floating_point()]
    trained, plain, start = (torch.cat([w[name].flatten() for name in names]) for w in (trained, plain, start))
    assert (trained - plain).norm() <= 1e-3 * (trained - start).norm()
    (line,) = (tmp_path / "train.jsonl").read_text().splitlines()
    expected = dict(zip(("largest", "smallest", "others"), losses.tolist(), strict=True))
    assert json.loads(line)["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_largest_network_learns(tiny, data, tmp_path):
    losses = []
    settings = config(phases=[{"strategy": "full", "epochs": 8}], lr=0.05, checkpoint_seconds=1e9)
    supernet = ofa.Supernet(tiny, seed=0)
    train(supernet, data, settings, tmp_path, lambda _, __, message: losses.append(float(message.split()[-1])))
    assert len(losses) == 32
    assert np.mean(losses[-4:]) < 0.75 * np.mean(losses[:4])
    log = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == list(range(1, 9))
    assert log[-1]["loss"]["largest"] == pytest.approx(np.mean(losses[-4:]), abs=1e-3)


def test_the_average_of_the_weights_is_what_the_run_ends_with(tiny, data, tmp_path):
    phases = [{"strategy": "full", "epochs": 1}]
    settings = {decay: config(phases=phases, ema_decay=decay) for decay in (None, 0.999)}
    last, average = (run(tiny, data, settings[decay], tmp_path / str(decay)) for decay in (None, 0.999))
    start = ofa.Supernet(tiny, seed=0).network.state_dict()
    distances = [(weights["stem.conv.weight"] - start["stem.conv.weight"]).norm() for weights in (average, last)]
    assert 0 < distances[0] < distances[1]


def test_progress_the_log_and_the_phases(tiny, data, tmp_path):
    told = []
    train(ofa.Supernet(tiny), data, config(), tmp_path, lambda *progress: told.append(progress))
    assert [(done, total) for done, total, _ in told] == [(step, 8) for step in range(1, 9)]
    assert told[5][2].startswith("epoch 2/2, loss ")
    log = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [(line["step"], line["strategy"]) for line in log] == [(4, "full"), (8, "sandwich")]
    assert [set(line["loss"]) for line in log] == [{"largest"}, {"largest", "smallest", "others"}]
    assert all(0 <= line[f"{end}_top1_percent"] <= 100 for line in log for end in ("largest", "smallest"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "train.jsonl"]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["best.safetensors", "step-00000007.safetensors", "step-00000008.safetensors"]


@pytest.mark.parametrize(("at", "checkpoint"), [(1, "there is no checkpoint yet"), (6, r"step-00000004\.safetensors")])
def test_a_loss_that_is_not_finite_stops_the_training(tiny, data, tmp_path, monkeypatch, at, checkpoint):
    calls = []

    def broken(images, resolution):
        calls.append(resolution)
        return resize_center_crop(images, resolution) * (math.nan if len(calls) == at else 1.0)

    monkeypatch.setattr(ofa.train.step, "resize_center_crop", broken)
    settings = config(phases=[{"strategy": "full", "epochs": 2}], checkpoint_seconds=1e9)
    before = rf"the loss nan is not finite at step {at} of 8, for .*\"resolution\": 16.*{checkpoint}; lower train\.lr"
    with pytest.raises(TrainError, match=before):
        train(ofa.Supernet(tiny), data, settings, tmp_path)


def test_classes_of_few_images_weigh_more_where_that_is_asked_for(tiny, data, tmp_path):
    labels = data.train.labels
    uneven = replace(data, train=data.train.subset(np.flatnonzero((labels != 3) | (torch.arange(150) % 5 == 0))))
    settings = config(phases=[{"strategy": "full", "epochs": 1}], batch_size=16)
    plain = run(tiny, uneven, settings, tmp_path / "plain")
    weighted = run(tiny, uneven, settings.model_copy(update={"class_weights": "balanced"}), tmp_path / "weighted")
    assert not torch.equal(plain["head.classifier.bias"], weighted["head.classifier.bias"])
    assert weighted["head.classifier.bias"][3] > plain["head.classifier.bias"][3]


def test_classes_are_not_evened_out_twice(tiny, data, tmp_path):
    with pytest.raises(TrainError, match=r"train\.class_weights = balanced and data\.sampler = balanced would both"):
        train(ofa.Supernet(tiny), replace(data, sampler="balanced"), config(class_weights="balanced"), tmp_path)


def test_more_images_in_a_batch_than_there_are(tiny, data, tmp_path):
    with pytest.raises(TrainError, match=r"train\.batch_size = 151 is more than the 150 training images; lower it"):
        train(ofa.Supernet(tiny), data, config(batch_size=151), tmp_path)
    assert not list(tmp_path.iterdir())


def test_parts_of_a_batch_that_are_too_small_are_refused_before_training(tiny, data, tmp_path):
    phases = [{"strategy": "spread", "epochs": 1, "subnets": 32, "parts": 32}]
    settings = config(phases=phases, batch_size=32, teacher="none")
    with pytest.raises(TrainError, match=r"parts = 32 leaves less than 2 .* 32 images to each part; give at most 16"):
        run(tiny, data, settings, tmp_path)


def test_a_training_may_start_from_weights_and_may_be_nothing_else(tiny, data, tmp_path):
    weights = ofa.Supernet(tiny, seed=9).network.state_dict()
    write_tensors(tmp_path / "weights.safetensors", weights)
    settings = config(phases=[], initial_weights=str(tmp_path / "weights.safetensors"))
    assert_equal(run(tiny, data, settings, tmp_path / "nothing"), weights)
    assert (tmp_path / "nothing" / "train.jsonl").read_text() == ""
    trained = run(tiny, data, config(initial_weights=settings.initial_weights), tmp_path / "run")
    fresh = run(tiny, data, config(), tmp_path / "fresh")
    assert not torch.equal(trained["stem.conv.weight"], fresh["stem.conv.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "adamw"}, "train.optimizer = 'adamw', the checkpoints are of a training with 'sgd'; restore"),
        ({"weight_decay": 0.5}, "train.weight_decay = 0.5, the checkpoints are of a training with 3e-05; restore"),
        ({"momentum": 0.5}, "train.momentum = 0.5, the checkpoints are of a training with 0.9; restore"),
    ],
)
def test_checkpoints_of_another_optimizer_are_refused(tiny, data, tmp_path, change, said):
    phases = [{"strategy": "full", "epochs": 1}]
    train(ofa.Supernet(tiny), data, config(phases=phases), tmp_path)
    with pytest.raises(CheckpointError, match=said):
        train(ofa.Supernet(tiny), data, config(phases=phases, **change), tmp_path)


def test_checkpoints_of_another_network_are_refused(tiny, data, tmp_path):
    phases = [{"strategy": "full", "epochs": 1}]
    train(ofa.Supernet(tiny), data, config(phases=phases), tmp_path)
    other = ofa.create_family("hybrid_small", num_classes=10, in_channels=1)
    with pytest.raises(CheckpointError, match=r"of another network \(.*remove the folder to start the training over"):
        train(ofa.Supernet(other), data, config(phases=phases), tmp_path)


@pytest.mark.parametrize("first", ["full", "sandwich"])
def test_a_teacher_from_initial_weights_gets_statistics_of_its_own(tiny, data, tmp_path, monkeypatch, first):
    supernet = ofa.Supernet(tiny, seed=4)
    supernet.save(tmp_path / "weights.safetensors")
    frozen, calibrated = [], []

    def freeze(step, tensors):
        original(step, tensors)
        frozen.append(step.teacher)

    original = ofa.train.step.TrainingStep.freeze_teacher
    monkeypatch.setattr(ofa.train.step.TrainingStep, "freeze_teacher", freeze)
    monkeypatch.setattr(ofa.train.trainer, "calibrate", lambda network, _: calibrated.append(network))
    phases = [{"strategy": first, "epochs": 1}, {"strategy": "sandwich", "epochs": 1}]
    settings = config(phases=phases, teacher="full", initial_weights=str(tmp_path / "weights.safetensors"))
    train(ofa.Supernet(tiny), data, settings, tmp_path / "run")
    assert len(frozen) == 1
    assert calibrated == ([] if first == "full" else frozen)


@pytest.mark.parametrize("teacher", ["average", "full"])
@pytest.mark.parametrize("strategy", ["uniform", "fair", "sandwich"])
def test_a_teacher_sees_images_of_the_size_that_it_takes(data, tmp_path, teacher, strategy):
    class Net(torch.nn.Module):
        def __init__(self, width, resolution):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, width, 1)
            self.position = torch.nn.Parameter(torch.zeros(1, 1, 16, 16))
            self.head = torch.nn.Linear(width, 10)
            self.resolution = resolution

        def forward(self, x):
            assert x.shape[-1] == self.resolution, "another size"
            position = self.position[..., : x.shape[-1], : x.shape[-1]]
            return self.head(self.conv(x + position).mean(dim=(2, 3)))

    space = ofa.SearchSpace([ofa.Choice("resolution", (12, 16)), ofa.Choice("width", (4, 8))])
    family = ofa.Family.from_builder(space, lambda arch: Net(arch["width"], arch["resolution"]), in_channels=1)
    first = [{"strategy": "full", "epochs": 1}] if teacher == "full" else []
    settings = config(phases=[*first, {"strategy": strategy, "epochs": 1}], teacher=teacher)
    train(ofa.Supernet(family), data, settings, tmp_path)


def test_a_classifier_of_other_classes_starts_anew(data, tmp_path, tiny):
    options = dict(tiny.options) | {"num_classes": 7}
    weights = ofa.Supernet(ofa.create_family("small_mobilenet_v3", **options), seed=9).network.state_dict()
    write_tensors(tmp_path / "weights.safetensors", weights)
    settings = config(phases=[], initial_weights=str(tmp_path / "weights.safetensors"))
    got = run(tiny, data, settings, tmp_path / "run")
    fresh = ofa.Supernet(tiny, seed=0).network.state_dict()
    assert torch.equal(got["stem.conv.weight"], weights["stem.conv.weight"])
    assert torch.equal(got["head.classifier.weight"], fresh["head.classifier.weight"])


def test_weights_of_another_network_are_refused(tiny, data, tmp_path):
    options = dict(tiny.options) | {"width_mult": 1.0}
    weights = ofa.Supernet(ofa.create_family("small_mobilenet_v3", **options)).network.state_dict()
    write_tensors(tmp_path / "weights.safetensors", weights)
    with pytest.raises(CheckpointError, match="holds another network"):
        run(tiny, data, config(initial_weights=str(tmp_path / "weights.safetensors")), tmp_path / "run")
    with pytest.raises(CheckpointError, match="missing, truncated"):
        run(tiny, data, config(initial_weights=str(tmp_path / "none.safetensors")), tmp_path / "run")


def test_no_phases_want_weights():
    with pytest.raises(ValueError, match="phases is empty, which requires initial_weights"):
        config(phases=[])


SHRINKING = [
    {"strategy": "full", "epochs": 1},
    {"strategy": "uniform", "epochs": 1, "lr": 0.05, "elastic": {"*.kernel": "all"}},
    {"strategy": "uniform", "epochs": 1, "subnets": 2, "elastic": {"*.kernel": "all", "*.depth": 2}},
    {"strategy": "uniform", "epochs": 1, "subnets": 2, "lr": 0.02, "sort_channels": True},
]
OTHERS = {
    "progressive shrinking": {"phases": SHRINKING, "teacher": "full"},
    "fair": {"phases": [{"strategy": "fair", "epochs": 2}], "teacher": "none"},
    "pareto": {
        "phases": [{"strategy": "pareto", "epochs": 1, "random": 1}],
        "distill": {"loss": "alpha", "labels_weight": 0.0},
    },
    "spread": {"phases": [{"strategy": "spread", "epochs": 2, "subnets": 4, "parts": 2}], "teacher": "average"},
    "delayed": {
        "phases": [{"strategy": "full", "epochs": 1}, {"strategy": "sandwich", "epochs": 1, "ramp_epochs": 0.5}]
    },
}


@pytest.mark.parametrize(
    "name", [pytest.param(s, marks=pytest.mark.slow if s != "progressive shrinking" else ()) for s in OTHERS]
)
def test_every_way_of_training_resumes_to_the_last_bit(tiny, data, tmp_path, name):
    settings = config(**OTHERS[name])
    whole = run(tiny, data, settings, tmp_path / "whole")
    steps = 4 * sum(phase.epochs for phase in settings.phases)
    kill_at = sorted(random.Random(name).sample(range(1, steps + 1), 3))
    assert_equal(whole, run(tiny, data, settings, tmp_path / "resumed", kill_at))


def seen_archs(monkeypatch):
    """The archs of every step from now on."""
    found = []
    learn = ofa.train.step.TrainingStep.accumulate_gradients

    def note(self, archs, images, *rest):
        found.append((archs, images.shape[-1]))
        return learn(self, archs, images, *rest)

    monkeypatch.setattr(ofa.train.step.TrainingStep, "accumulate_gradients", note)
    return found


def test_a_phase_shrinks_what_it_names_and_nothing_else(tiny, data, tmp_path, monkeypatch):
    found = seen_archs(monkeypatch)
    run(tiny, data, config(phases=SHRINKING), tmp_path)
    largest = tiny.space.largest
    for archs, _ in found[:4]:
        assert archs == [largest]
    kernels = {name for name in largest if name.endswith(".kernel")}
    changed = {name for archs, _ in found[4:8] for arch in archs for name in arch if arch[name] != largest[name]}
    assert changed
    assert changed <= kernels
    depths = [arch[name] for archs, _ in found[8:12] for arch in archs for name in arch if name.endswith(".depth")]
    allowed = {value for choice in tiny.space.choices if choice.name.endswith(".depth") for value in choice.values[-2:]}
    assert set(depths) <= allowed
    assert [len(archs) for archs, _ in found] == [1] * 8 + [2] * 8


def test_batches_are_loaded_at_the_size_they_are_used(data, tmp_path, monkeypatch):
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [8, 16], "width_mult": 0.5}
    family = ofa.create_family("small_mobilenet_v3", **options)
    found = seen_archs(monkeypatch)
    run(family, data, config(phases=[{"strategy": "uniform", "epochs": 3}]), tmp_path)
    assert {size for _, size in found} == {8, 16}
    assert all(arch["resolution"] == size for archs, size in found for arch in archs)


def test_sorting_channels_changes_no_answer_of_the_largest_network(tiny, data, tmp_path, monkeypatch):
    answers = []
    sort = TrainingState._sort_channels
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    def note(self, plan, epoch):
        networks = [self.supernet.network, self.ema.module]
        with torch.no_grad():
            before = [network.eval()(images) for network in networks]
            sort(self, plan, epoch)
            answers.append((before, [network.eval()(images) for network in networks], plan.trained_space(epoch)))

    monkeypatch.setattr(TrainingState, "_sort_channels", note)
    run(tiny, data, config(phases=SHRINKING), tmp_path)
    ((before, after, trained),) = answers
    assert trained.names == tiny.space.names  # of the phase before
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_losses_of_smaller_archs_rise_from_nothing(tiny, data, tmp_path, monkeypatch):
    weights = []
    learn = ofa.train.step.TrainingStep.accumulate_gradients

    def note(self, archs, images, labels, weight, *rest):
        weights.append(weight)
        return learn(self, archs, images, labels, weight, *rest)

    monkeypatch.setattr(ofa.train.step.TrainingStep, "accumulate_gradients", note)
    phases = [{"strategy": "full", "epochs": 1}, {"strategy": "sandwich", "epochs": 2, "ramp_epochs": 1.5}]
    run(tiny, data, config(phases=phases), tmp_path)
    assert weights[:4] == [1.0] * 4
    assert weights[4:] == pytest.approx([min(1, (i + 1) / 6) for i in range(8)])


def test_a_request_to_stop_saves_the_step_and_says_how_to_go_on(tiny, data, tmp_path):
    whole = run(tiny, data, config(checkpoint_seconds=1e9), tmp_path / "whole")

    def ask(done, *_):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    settings = config(checkpoint_seconds=1e9)
    with pytest.raises(Stopped, match=r"stopped after step 4 of 8, saved in .*; the same command resumes"):
        train(ofa.Supernet(tiny, seed=0), data, settings, tmp_path / "run", ask)
    assert_equal(whole, run(tiny, data, settings, tmp_path / "run"))


def test_a_full_disk_loses_nothing_that_was_saved(tiny, data, tmp_path, monkeypatch):
    whole = run(tiny, data, config(), tmp_path / "whole")
    write, calls = ofa.train.checkpoints.write_tensors, []

    def full(path, *rest):
        calls.append(path)
        if len(calls) == 4:
            path.parent.joinpath(".half-written").write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(path, *rest)

    monkeypatch.setattr(ofa.train.checkpoints, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        train(ofa.Supernet(tiny, seed=0), data, config(), tmp_path / "run")
    assert_equal(whole, run(tiny, data, config(), tmp_path / "run"))


def test_mixed_images_are_learned_from(tiny, data, tmp_path):
    mixed = DataConfig(name="digits", augment={"mixup": 0.8, "cutmix": 1.0})
    runs = [run(tiny, data, config(), tmp_path / name, data_config=mixed) for name in "ab"]
    assert_equal(*runs)
    plain = run(tiny, data, config(), tmp_path / "plain")
    assert not torch.equal(plain["stem.conv.weight"], runs[0]["stem.conv.weight"])


def test_a_loss_that_explodes_stops_the_training(tiny, data, tmp_path):
    with pytest.raises(
        TrainError, match=r"the loss .* is above train\.max_loss = 0\.1 at step 1 of 8, for .*lower train"
    ):
        train(ofa.Supernet(tiny), data, config(max_loss=0.1), tmp_path)


@pytest.mark.parametrize(("means", "best"), [((50.0, 20.0), 4), ((20.0, 50.0), 8), ((50.0, 50.0), 4)])
def test_the_best_weights_are_those_of_the_best_epoch(tiny, data, tmp_path, monkeypatch, means, best):
    epochs = iter(means)

    def evaluate_subnets(supernet, archs, *_, **__):  # noqa: ARG001
        mean = next(epochs)
        return [(arch, Metrics(mean + offset, None, 0.0)) for arch, offset in zip(archs, (-9, 0, 9), strict=True)]

    monkeypatch.setattr(ofa.train.validation, "evaluate_subnets", evaluate_subnets)
    run(tiny, data, config(checkpoints=10), tmp_path)
    checkpoint, _ = read_tensors(tmp_path / "checkpoints" / f"step-{best:08d}.safetensors")
    averaged = {name.removeprefix("ema."): t for name, t in checkpoint.items() if name.startswith("ema.")}
    assert_equal(read_tensors(tmp_path / "checkpoints" / "best.safetensors")[0], averaged)
    assert ofa.Supernet.load(tmp_path / "checkpoints" / "best.safetensors").family.options == tiny.options


def test_the_average_of_the_weights_follows_its_formula(tiny, data, tmp_path):
    """timm's warm-up: the decay of step `n`, from 0, is `1 - n ** (-2 / 3)`, at most `ema_decay`, and 0 at first."""
    decay = 0.6
    run(tiny, data, config(ema_decay=decay, checkpoints=10), tmp_path)
    average = ofa.Supernet(tiny, seed=0).network.state_dict()
    for step in range(8):
        checkpoint, _ = read_tensors(tmp_path / "checkpoints" / f"step-{step + 1:08d}.safetensors")
        weight = max(1 - decay, step ** (-2 / 3)) if step > 1 else 1.0
        for name, tensor in average.items():
            if tensor.is_floating_point():
                tensor.lerp_(checkpoint[f"network.{name}"], weight)
                torch.testing.assert_close(checkpoint[f"ema.{name}"], tensor, rtol=1e-4, atol=1e-6)


def test_a_training_returns_its_history(tiny, data, tmp_path):
    history = train(ofa.Supernet(tiny), data, config(), tmp_path)
    assert history == [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2]
    assert train(ofa.Supernet(tiny), data, config(), tmp_path) == history  # nothing is left to train


@pytest.mark.parametrize("strategy", ["pareto", "spread"])
def test_archs_by_size_without_sizes_are_refused_before_training(tiny, data, tmp_path, strategy):
    settings = config(phases=[{"strategy": strategy, "epochs": 1}], teacher="none")
    with pytest.raises(
        TrainError, match=rf"strategy '{strategy}' .* give train\(\.\.\., macs_m=ofa\.macs_m\(family\)\)"
    ):
        ofa.train.trainer.train(ofa.Supernet(tiny), data, settings, folder=tmp_path)


def test_events_for_tensorboard(tiny, data, tmp_path):
    run(tiny, data, config(tensorboard=True, phases=[{"strategy": "full", "epochs": 3}]), tmp_path)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(tag in content for tag in (b"loss/largest", b"lr", b"top1_percent/largest", b"top1_percent/smallest"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher": "full", "phases": [{"strategy": "uniform", "epochs": 1}]}, "teacher full requires a first phase"),
        ({"phases": [{"strategy": "spread", "epochs": 1}]}, "strategy spread .* use teacher average, full or none"),
        ({"teacher": "average", "ema_decay": None}, "teacher average requires ema_decay"),
        ({"teacher": "average", "distill": {"labels_weight": 0.0}}, "learns from itself alone; give labels_weight"),
        (
            {"phases": [{"strategy": "uniform", "epochs": 1, "sort_channels": True}]},
            "cannot sort channels that were never",
        ),
    ],
)
def test_settings_that_contradict_each_other(options, said):
    with pytest.raises(ValueError, match=said):
        config(**options)


def test_a_pattern_that_matches_no_choice_is_refused_before_training(tiny, data, tmp_path):
    phases = [{"strategy": "full", "epochs": 1}, {"strategy": "uniform", "epochs": 1, "elastic": {"*.heads": 2}}]
    with pytest.raises(SpaceError, match=r"\*\.heads"):
        run(tiny, data, config(phases=phases), tmp_path)
    assert not list(tmp_path.iterdir())
