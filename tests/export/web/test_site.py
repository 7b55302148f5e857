"""The site's scripts against Python: the same preprocessing and the same decisions; needs node."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from export.policies.battery import Battery
from export.policies.latency_guard import LatencyGuard
from export.policies.policy import BatteryPolicy, Observation
from export.preprocess import Preprocess
from export.web import site
from export.web.site import service_worker, site_files

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node")


def run_node(script, given):
    """Return what a script prints as JSON; it gets `given` from standard input, and imports from the site's folder."""
    text = f"""
    const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
    (async () => {{ {script} }})().catch((error) => {{ console.error(error); process.exit(1); }});
    """
    done = subprocess.run(
        [NODE, "-e", text], input=json.dumps(given), capture_output=True, text=True, timeout=120, cwd=site._SITE
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_pictures_are_preprocessed_as_in_python():
    rng, cases = np.random.default_rng(0), []
    shapes = [
        (8, 8),
        (28, 28, 1),
        (33, 20, 3),
        (20, 47, 4),
        (64, 50, 2),
        (5, 90, 3),
        (90, 7, 1),
        (37, 37, 4),
        (28, 31, 3),
    ]
    for shape in shapes:
        for resolution, in_channels in ((28, 1), (12, 3), (31, 3), (8, 1)):
            mean, std = rng.uniform(0.2, 0.6, (2, in_channels))
            background = tuple(int(value) for value in rng.integers(0, 256, 3))
            spec = Preprocess(resolution, in_channels, tuple(mean), tuple(std), background)
            cases.append((rng.integers(0, 256, shape, dtype=np.uint8), spec))
    given = [
        {
            "picture": {"height": pixels.shape[0], "width": pixels.shape[1], "data": pixels.ravel().tolist()},
            "spec": vars(spec),
        }
        for pixels, spec in cases
    ]
    script = """
    const { preprocess } = await import("./preprocess.js");
    console.log(JSON.stringify(given.map(({ picture, spec }) => Array.from(preprocess(picture, spec)))));
    """
    for (pixels, spec), values in zip(cases, run_node(script, given), strict=True):
        expected = spec(pixels)
        assert np.abs(np.reshape(values, expected.shape) - expected).max() < 2e-6, (pixels.shape, spec)


@needs_node
def test_every_blend_and_every_gray_is_pillows():
    alphas, values = (grid.ravel().astype(np.uint8) for grid in np.meshgrid(np.arange(256), np.arange(256)))
    pixels = np.stack([values, values[::-1], np.roll(values, 77), alphas], axis=1).reshape(256, 256, 4)
    for in_channels in (1, 3):
        spec = Preprocess(256, in_channels, (0.0,) * in_channels, (1.0,) * in_channels, (200, 30, 255))
        given = {"picture": {"height": 256, "width": 256, "data": pixels.ravel().tolist()}, "spec": vars(spec)}
        script = """
        const { preprocess } = await import("./preprocess.js");
        const input = preprocess(given.picture, given.spec);
        console.log(JSON.stringify(Array.from(input, (value) => Math.round(255 * value))));
        """
        got = np.reshape(run_node(script, given), (in_channels, 256, 256))
        image = Image.alpha_composite(Image.new("RGBA", (256, 256), (200, 30, 255, 255)), Image.fromarray(pixels))
        expected = (
            np.asarray(image.convert("L" if in_channels == 1 else "RGB")).reshape(256, 256, -1).transpose(2, 0, 1)
        )
        assert np.array_equal(got, expected)


def walk(rng, n):
    """Yield observations of a battery that wanders and a latency that comes and goes."""
    percent, level, time_s = 100.0, None, 0.0
    for _ in range(n):
        percent = float(np.clip(percent + rng.normal(-0.5, 4), 0, 100))
        time_s += float(rng.exponential(20))
        latency_ms = None if level is None or rng.random() < 0.2 else float(rng.lognormal(np.log(2), 0.7))
        yield Observation(time_s, Battery(percent, bool(rng.random() < 0.1)), (), level, latency_ms)
        level = int(rng.integers(0, 4))


@needs_node
@pytest.mark.parametrize("guarded", [False, True])
def test_policies_decide_as_in_python(guarded):
    seen = list(walk(np.random.default_rng(1), 2000))
    policy = BatteryPolicy.even(4)
    policy = LatencyGuard(policy, (4.0, 2.0, 1.0, 0.5), 2.5) if guarded else policy
    expected, state = [], None
    for one in seen:
        level, state = policy.decide(state, one)
        expected.append(level)
    given = {
        "guarded": guarded,
        "seen": [
            {
                "timeS": one.time_s,
                "battery": {"percent": one.battery.percent, "charging": one.battery.charging},
                "level": one.level,
                "latencyMs": one.latency_ms,
            }
            for one in seen
        ],
    }
    script = """
    const { BatteryPolicy, LatencyGuard } = await import("./policy.js");
    let policy = BatteryPolicy.even(4);
    if (given.guarded) policy = new LatencyGuard(policy, [4, 2, 1, 0.5], 2.5);
    const levels = [];
    let [level, state] = [null, null];
    for (const seen of given.seen) {
      [level, state] = policy.decide(state, seen);
      levels.push(level);
    }
    console.log(JSON.stringify(levels));
    """
    assert run_node(script, given) == expected
    assert set(expected) == {0, 1, 2, 3}


@pytest.mark.usefixtures("vendor")
def test_the_site_is_whole_and_its_service_worker_changes_with_the_content():
    files = site_files()
    manifest = b"{}"
    worker = service_worker(files, manifest).decode()
    for name in files:
        assert (f'"{name}"' in worker) == (name != "service-worker.js")
    assert "$" not in worker.replace("${", "")
    assert service_worker(files, b"{} ") != worker.encode()
    assert service_worker(files | {"app.js": b"changed"}, manifest) != worker.encode()
    for name in ("index.html", "app.js", "runtime.js"):
        for word in files[name].decode().replace("'", '"').split('"'):
            if word.endswith((".js", ".mjs", ".css", ".svg")):
                assert word.removeprefix("./") in files, f"{name} names {word}"
    assert "innerHTML" not in files["app.js"].decode()
