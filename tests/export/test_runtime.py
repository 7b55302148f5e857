import shutil
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

import export.runtime
from export.bundle import load_bundle
from export.formats.mnn_format import write_mnn
from export.machine import operating_system, processor
from export.policies.battery import Battery
from export.policies.endurance import EndurancePolicy
from export.policies.latency_guard import LatencyGuard
from export.policies.policy import BatteryPolicy
from export.runtime import Runtime, softmax
from export.session import session
from ofa.core.errors import BundleError, DataError


class Moving:
    """A battery whose charge is set by a test."""

    def __init__(self, percent=100.0):
        self.reading = Battery(percent, charging=False)
        self.reads = 0

    def __call__(self):
        self.reads += 1
        return self.reading

    def set(self, percent, charging=False):
        self.reading = Battery(percent, charging)


def alone(folder, level, images):
    """The probabilities of one level's session by itself."""
    bundle = load_bundle(folder)
    batch = bundle.levels[level].preprocess(images)
    return softmax(session(bundle.read_model(bundle.levels[level])).run(None, {"images": batch})[0])


def test_predictions_are_those_of_the_level(folder, images):
    battery = Moving()
    with Runtime(folder, battery=battery, poll_seconds=0) as runtime:
        for percent, level in ((100, 0), (60, 1), (5, 2), (90, 0)):
            battery.set(percent)
            prediction = runtime.predict(images)
            expected = alone(folder, level, images)
            assert prediction.level == runtime.level == level
            assert np.array_equal(prediction.probabilities, expected)
            assert prediction.probabilities.dtype == np.float32
            assert prediction.labels == tuple("abcdefghij"[top] for top in expected.argmax(axis=1))
            assert np.allclose(prediction.probabilities.sum(axis=1), 1)
            assert prediction.latency_ms > 0


def test_eight_threads_and_a_moving_battery_never_mix_or_drop_a_request(folder, images):
    requests = [images[:1], images[1:4], images[4:], images[:4]]
    expected = [[alone(folder, level, request) for request in requests] for level in range(3)]
    for levels in zip(*expected, strict=True):
        assert all(np.abs(a - b).max() > 0.01 for a, b in combinations(levels, 2))
    battery, stop, seen = Moving(), threading.Event(), set()

    def drain():
        while not stop.is_set():
            for percent in (100, 50, 5, 60):
                battery.set(percent)

    def hammer(worker):
        answers = []
        while len(answers) < 60 or (len(seen) < 3 and len(answers) < 3000):  # a busy machine may poll seldom
            number = (worker + len(answers)) % len(requests)
            answers.append((number, runtime.predict(requests[number])))
            seen.add(answers[-1][1].level)
        return answers

    mover = threading.Thread(target=drain)
    with Runtime(folder, battery=battery, poll_seconds=0.002) as runtime, ThreadPoolExecutor(8) as pool:
        mover.start()
        try:
            answers = [answer for worker in pool.map(hammer, range(8)) for answer in worker]
        finally:
            stop.set()
            mover.join()
    assert len(answers) >= 8 * 60
    for number, prediction in answers:
        assert np.array_equal(prediction.probabilities, expected[prediction.level][number])
    assert seen == {0, 1, 2}


def test_requests_go_on_at_the_old_level_while_another_is_loaded(folder, images, monkeypatch):
    battery, loading, go_on = Moving(), threading.Event(), threading.Event()
    runtime = Runtime(folder, battery=battery, poll_seconds=0)

    def slow_session(model, threads):
        loading.set()
        assert go_on.wait(timeout=20)
        return session(model, threads)

    monkeypatch.setattr(export.runtime, "session", slow_session)
    battery.set(10)
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(runtime.predict, images)
        assert loading.wait(timeout=20)
        assert runtime.predict(images).level == 0
        go_on.set()
        assert switching.result(timeout=20).level == 2
    assert runtime.predict(images).level == 2


def test_a_request_that_began_finishes_on_its_level(folder, images, monkeypatch):
    battery = Moving()
    runtime = Runtime(folder, battery=battery, poll_seconds=float("inf"))
    expected = alone(folder, 0, images)
    inside = type(runtime.bundle.levels[0].preprocess).__call__

    def switch_meanwhile(self, pictures):
        batch = inside(self, pictures)
        battery.set(1)
        assert runtime.update() == 2
        runtime.close()
        return batch

    monkeypatch.setattr("export.preprocess.Preprocess.__call__", switch_meanwhile)
    prediction = runtime.predict(images)
    assert prediction.level == 0
    assert np.array_equal(prediction.probabilities, expected)


def test_the_battery_is_read_at_most_every_poll(folder, images, monkeypatch):
    battery, now = Moving(), [1000.0]
    monkeypatch.setattr("export.runtime.time.monotonic", lambda: now[0])
    runtime = Runtime(folder, battery=battery, poll_seconds=10)
    for now[0], reads in ((1009.9, 1), (1010.0, 2), (1019.0, 2), (1020.0, 3)):
        runtime.predict(images[:1])
        assert battery.reads == reads
    runtime.update()
    assert battery.reads == 4


def test_the_first_level_is_that_of_the_charge_and_mains_power_is_level_0(folder):
    battery = Moving(20)
    runtime = Runtime(folder, battery=battery)
    assert runtime.level == 2
    battery.set(20, charging=True)
    assert runtime.update() == 0


@pytest.mark.parametrize("trouble", [Battery(float("nan"), False), Battery(400, False), None, OSError("no driver")])
def test_a_battery_that_cannot_be_read_keeps_the_level_and_warns_once(folder, images, trouble):
    readings = [Battery(50, False)]

    def battery():
        if isinstance(readings[-1], Exception):
            raise readings[-1]
        return readings[-1]

    runtime = Runtime(folder, battery=battery, poll_seconds=0)
    readings.append(trouble)
    with pytest.warns(RuntimeWarning, match="keeps serving level 1"):
        assert runtime.predict(images).level == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert runtime.predict(images).level == 1
        readings.append(Battery(5, False))
        assert runtime.predict(images).level == 2
    readings.append(trouble)
    with pytest.warns(RuntimeWarning, match="keeps serving level 2"):
        runtime.update()


def test_a_battery_that_cannot_be_read_at_the_start_means_level_0(folder):
    with pytest.warns(RuntimeWarning, match="keeps serving level 0"):
        runtime = Runtime(folder, battery=lambda: Battery(-1, False))
    assert runtime.level == 0


def test_a_level_that_is_damaged_later_is_not_switched_to(folder, images):
    battery = Moving()
    runtime = Runtime(folder, battery=battery, poll_seconds=0)
    whole = (folder / "level-2.graph").read_bytes()
    (folder / "level-2.graph").write_bytes(whole[:-9])
    battery.set(5)
    with pytest.warns(RuntimeWarning, match=r"keeps serving level 0.*level-2\.graph cannot be assembled"):
        assert runtime.predict(images).level == 0
    (folder / "level-2.graph").write_bytes(whole)
    assert runtime.predict(images).level == 2


def test_a_corrupt_bundle_fails_at_construction(folder):
    (folder / "weights.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"weights\.bin does not match its checksum"):
        Runtime(folder, battery=Moving())


def test_a_model_that_does_not_run_fails_at_construction(levels, write, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    bundle = write(tmp_path / "bundle", [replace(levels[0], file="broken.onnx")], source=tmp_path)
    with pytest.raises(BundleError, match=r"^level 0 .* does not run here: ONNX Runtime cannot load .*$"):
        Runtime(bundle.folder, battery=Moving())


def test_labels_or_channels_of_another_model_fail_at_construction(levels, write, tmp_path):
    bundle = write(tmp_path / "labels", levels, labels=["a", "b"])
    with pytest.raises(BundleError, match=r"returns \(10,\) logits for 2 labels"):
        Runtime(bundle.folder, battery=Moving())
    color = replace(levels[0].preprocess, in_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    bundle = write(tmp_path / "channels", [replace(levels[0], preprocess=color)])
    with pytest.raises(BundleError, match=r"^level 0 .* does not run here: ONNX Runtime cannot run .*$"):
        Runtime(bundle.folder, battery=Moving())


def test_a_policy_for_another_number_of_levels_is_refused(folder):
    with pytest.raises(BundleError, match="the policy is for 2 levels, the target laptop has 3; make the policy"):
        Runtime(folder, policy=BatteryPolicy((50,)))


class Watching:
    """A policy that keeps what it sees, and counts its decisions in its state."""

    n_levels = 3

    def __init__(self):
        self.seen = []

    def decide(self, state, seen):
        self.seen.append(seen)
        return (state or 0) % 3, (state or 0) + 1


def test_a_policy_sees_the_images_the_latency_and_the_time_and_gets_its_state_back(folder, images, monkeypatch):
    policy, now = Watching(), [100.0]
    monkeypatch.setattr("export.runtime.boot_time_s", lambda: now[0])
    with Runtime(folder, policy=policy, battery=Moving(40), poll_seconds=float("inf")) as runtime:
        latencies_ms = [runtime.predict(images[:n]).latency_ms for n in (1, 2, 3)]
        now[0] = 200.0
        assert runtime.update() == 1
        runtime.predict(images[:5])
        assert runtime.update() == 2
        runtime.update()
    first, second, third, last = policy.seen
    assert (first.time_s, first.images, first.level, first.latency_ms) == (100.0, (0, 0, 0), None, None)
    assert first.battery == Battery(40, charging=False)
    assert (second.time_s, second.images, second.level) == (200.0, (6, 0, 0), 0)
    assert second.latency_ms == sorted(latencies_ms)[1]
    assert (third.images, third.level) == ((6, 5, 0), 1)
    assert (last.images, last.level, last.latency_ms) == ((6, 5, 0), 1, None)


def test_the_clock_of_policies_runs_on_while_the_machine_sleeps_where_the_system_can_tell(monkeypatch):
    monkeypatch.setattr("export.runtime.time.monotonic", lambda: 3.0)
    monkeypatch.setattr("export.runtime.time.CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr("export.runtime.time.clock_gettime", {7: 50.0}.__getitem__, raising=False)
    assert export.runtime.boot_time_s() == 50.0
    monkeypatch.delattr("export.runtime.time.CLOCK_BOOTTIME")
    assert export.runtime.boot_time_s() == 3.0


def test_it_takes_a_guarded_policy_that_makes_the_battery_last(folder, images):
    levels = load_bundle(folder).levels
    policy = EndurancePolicy.of(levels, hours=8, requests_per_hour=1e9, power_w=5.0)
    guard = LatencyGuard.of(policy, levels, bound_ms=1e6)
    readings = [Battery(50, charging=False, capacity_wh=10.0), Battery(50, charging=True, capacity_wh=10.0)]
    with Runtime(folder, policy=guard, battery=lambda: readings[0], poll_seconds=0) as runtime:
        assert runtime.predict(images).level == 2
        readings.pop(0)
        assert runtime.predict(images).level == 0


def test_wrong_images_are_refused_and_the_next_request_is_served(folder, images):
    runtime = Runtime(folder, battery=Moving())
    with pytest.raises(DataError, match="float64"):
        runtime.predict(images / 255)
    assert len(runtime.predict(images).labels) == len(images)


def test_a_closed_runtime_says_so(folder, images):
    with Runtime(folder, battery=Moving(), poll_seconds=0) as runtime:
        runtime.predict(images)
    for use in (lambda: runtime.predict(images), runtime.update, lambda: runtime.level):
        with pytest.raises(BundleError, match="is closed"):
            use()


def test_it_serves_without_torch(folder):
    program = """
import sys
for name in ("torch", "torchvision", "timm", "onnx", "sklearn", "scipy", "pydantic", "ofa.space", "ofa.devices"):
    sys.modules[name] = None
from pathlib import Path
import numpy as np
import export.policies.day_demo
import export.replay
from export.runtime import Runtime
with Runtime(Path(sys.argv[1])) as runtime:
    print(len(runtime.predict(np.zeros((2, 28, 28), dtype=np.uint8)).labels))
"""
    result = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("2\n", "")


def test_levels_of_another_format_are_served_beside_shared_ones(levels, source, write, images, tmp_path):
    pytest.importorskip("_tools", reason="needs the extra mnn")
    for file in (level.file for level in levels):
        shutil.copy(source / file, tmp_path / file)
    write_mnn(tmp_path / levels[1].file, tmp_path / "middle.mnn")
    mixed = [levels[0], replace(levels[1], file="middle.mnn", format="mnn"), levels[2]]
    bundle = write(tmp_path / "bundle", mixed, source=tmp_path)
    assert [level.file for level in bundle.levels] == ["level-0.graph", "level-1.mnn", "level-2.graph"]
    expected = alone(write(tmp_path / "onnx", levels, source=tmp_path).folder, 1, images)
    battery = Moving()
    with Runtime(bundle.folder, battery=battery, poll_seconds=0) as runtime:
        for percent, level in ((100, 0), (60, 1), (5, 2), (60, 1)):
            battery.set(percent)
            prediction = runtime.predict(images)
            assert prediction.level == level
        assert np.abs(prediction.probabilities - expected).max() < 1e-4
    (bundle.folder / "level-1.mnn").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"level-1\.mnn does not match its checksum"):
        load_bundle(bundle.folder)


def test_a_format_that_no_runtime_serves_is_one_error(levels, source, write, tmp_path):
    shutil.copy(source / levels[0].file, tmp_path / "model.foo")
    folder = write(tmp_path / "bundle", [replace(levels[0], file="model.foo", format="foo")], source=tmp_path).folder
    with pytest.raises(BundleError, match=r"level-0\.foo has the format 'foo', which this runtime does not serve"):
        Runtime(folder)


HERE = {"runtime": "onnxruntime", "processor": processor(), "os": operating_system()}


def for_targets(levels, *targets):
    """The levels of each target at latencies of its own, the last target's without the slowest level."""
    return [replace(level, target=target) for target in targets for level in levels[int(target == targets[-1]) :]]


def test_the_levels_are_those_of_the_target_that_is_named(levels, write, images, tmp_path):
    folder = write(tmp_path / "bundle", for_targets(levels, "laptop", "phone")).folder
    battery = Moving(100)
    runtime = Runtime(folder, "phone", battery=battery)
    assert (runtime.target, runtime.policy.n_levels) == ("phone", 2)
    assert [(level.target, level.arch["resolution"]) for level in runtime.levels] == [("phone", 32), ("phone", 28)]
    prediction = runtime.predict(images)
    assert prediction.level == 0
    assert np.array_equal(prediction.probabilities, alone(folder, 4 - 1, images))
    battery.set(1)
    assert runtime.update() == 1
    assert np.array_equal(runtime.predict(images).probabilities, alone(folder, 5 - 1, images))
    with pytest.raises(BundleError, match="has no target 'watch'; choose from laptop, phone"):
        Runtime(folder, "watch", battery=battery)
    with pytest.raises(BundleError, match="the policy is for 3 levels, the target phone has 2; make the policy"):
        Runtime(folder, "phone", battery=battery, policy=BatteryPolicy((60, 30)))


@pytest.mark.parametrize(
    ("descriptions", "chosen"),
    [
        ({"a": {}, "b": {}}, "a"),
        ({"a": {}, "b": HERE}, "b"),
        ({"a": HERE, "b": HERE}, "a"),
        *(({"a": HERE | {key: "another"}, "b": HERE}, "b") for key in HERE),
    ],
)
def test_the_first_target_that_fits_this_machine_is_preferred(levels, write, tmp_path, descriptions, chosen):
    folder = write(tmp_path / "bundle", for_targets(levels, "a", "b"), targets=descriptions).folder
    assert Runtime(folder, battery=Moving()).target == chosen


def test_a_target_that_does_not_run_here_is_passed_over(levels, write, source, tmp_path):
    (tmp_path / "models").mkdir()
    for level in levels:
        (tmp_path / "models" / level.file).write_bytes((source / level.file).read_bytes())
    (tmp_path / "models" / "broken.onnx").write_bytes(b"not a model")
    broken = [replace(level, target="a", file="broken.onnx") for level in levels]
    folder = write(
        tmp_path / "bundle", [*broken, *levels], source=tmp_path / "models", targets={"a": HERE, "laptop": {}}
    ).folder
    assert Runtime(folder, battery=Moving()).target == "laptop"
    with pytest.raises(BundleError, match=r"^level 0 .* does not run here"):
        Runtime(folder, "a", battery=Moving())
    folder = write(tmp_path / "broken", broken, source=tmp_path / "models").folder
    with pytest.raises(BundleError, match=r"^level 0 .* does not run here"):
        Runtime(folder, battery=Moving())


def test_a_switch_to_a_neighbor_that_is_ready_loads_nothing(folder, images, monkeypatch):
    battery, loaders = Moving(), []

    def noting(model, threads):
        loaders.append(threading.current_thread())
        return session(model, threads)

    monkeypatch.setattr(export.runtime, "session", noting)
    with Runtime(folder, battery=battery, poll_seconds=0, keep_ready=True) as runtime:
        for percent, level, ready in ((100, 0, (0, 1)), (50, 1, (0, 1, 2)), (5, 2, (1, 2))):
            battery.set(percent)
            prediction = runtime.predict(images)
            assert prediction.level == level
            assert np.array_equal(prediction.probabilities, alone(folder, level, images))
            for _ in range(2000):
                if runtime.ready_levels == ready:
                    break
                time.sleep(0.005)
            assert runtime.ready_levels == ready
    assert runtime.ready_levels == ()
    assert [loader is threading.current_thread() for loader in loaders] == [True, False, False]


def test_by_default_one_level_is_loaded(folder):
    battery = Moving()
    runtime = Runtime(folder, battery=battery)
    assert runtime.ready_levels == (0,)
    battery.set(50)
    runtime.update()
    assert runtime.ready_levels == (1,)
