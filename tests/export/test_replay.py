import numpy as np
import pytest

from export.bundle import load_bundle
from export.policies.policy import BatteryPolicy
from export.replay import replay
from export.runtime import Runtime
from export.session import session
from ofa.core.errors import DataError


def test_levels_follow_the_battery_and_answers_are_counted(folder, images):
    bundle = load_bundle(folder)
    tops = []
    for level in bundle.levels:
        logits = session(bundle.read_model(level)).run(None, {"images": level.preprocess(images)})[0]
        tops.append(logits.argmax(axis=1))
    labels = tops[0]
    done = replay(folder, images, labels.tolist(), steps=11, charging_steps=2, images_per_step=len(images))
    assert [s.battery_percent for s in done] == [100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0, 50, 100]
    assert [s.level for s in done] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 0]
    assert [s.charging for s in done] == [False] * 11 + [True] * 2
    for step in done:
        assert step.correct == int((tops[step.level] == labels).sum())
        assert step.top1_percent == bundle.levels[step.level].top1_percent
        assert step.n_images == len(images)
        assert step.latency_ms > 0


def test_images_are_served_in_turn(folder, images, monkeypatch):
    served = []
    predict = Runtime.predict

    def watch(self, pictures):
        served.append(next(i for i, image in enumerate(images) if np.array_equal(image, pictures[0])))
        return predict(self, pictures)

    monkeypatch.setattr(Runtime, "predict", watch)
    replay(folder, images[:5], steps=2, charging_steps=1, images_per_step=3)
    assert served == [0, 1, 2, 3, 4, 0, 1, 2, 3]


def test_labels_may_be_unknown(folder, images):
    done = replay(folder, images[:2], steps=2, charging_steps=0, images_per_step=3)
    assert [(s.n_images, s.correct) for s in done] == [(3, None), (3, None)]


def test_a_policy_can_be_given(folder, images):
    done = replay(folder, images, steps=3, charging_steps=0, images_per_step=1, policy=BatteryPolicy((99, 98)))
    assert [s.level for s in done] == [0, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [1, 2]}, "6 images and 2 labels"),
        ({"labels": []}, "6 images and 0 labels"),
        ({"steps": 1}, "steps = 1 is not allowed; give a whole number from 2"),
        ({"charging_steps": -1}, "charging_steps = -1"),
        ({"images_per_step": 0}, "images_per_step = 0"),
    ],
)
def test_options_out_of_range_are_refused(folder, images, options, message):
    with pytest.raises(DataError, match=message):
        replay(folder, images, **options)


def test_without_images_there_is_nothing_to_replay(folder):
    with pytest.raises(DataError, match="0 images"):
        replay(folder, np.zeros((0, 28, 28), dtype=np.uint8))
