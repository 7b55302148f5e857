import json

import pytest

import ofa
from ofa.core.files import write_json, write_text
from ofa.cost.block_table import distinct_blocks
from ofa.cost.latency.table import LatencyTable
from ofa.devices.device import Timing
from ofa.pipeline.levels import Level, ReplayStep, write_records
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages
from tests.levels import level

RESOLUTIONS = [16, 24]
RECIPE = {
    "name": "tiny",
    "family": {"name": "small_mobilenet_v3", "options": {"resolutions": RESOLUTIONS}},
    "data": {"name": "digits", "folder": "</pre><script>alert('folder')</script>"},
    "train": {"phases": [{"strategy": "full", "epochs": 1}, {"strategy": "sandwich", "epochs": 2}]},
}
EPOCHS = [
    {
        "epoch": 1,
        "strategy": "full",
        "loss": {"largest": 2.0},
        "largest_top1_percent": 40.0,
        "smallest_top1_percent": 9.0,
    },
    {
        "epoch": 2,
        "strategy": "sandwich",
        "loss": {"largest": 1.5, "smallest": 1.75, "others": 1.6},
        "largest_top1_percent": 80.0,
        "smallest_top1_percent": 60.0,
    },
    {
        "epoch": 3,
        "strategy": "sandwich",
        "loss": {"largest": 1.25, "smallest": 1.5, "others": 1.4},
        "largest_top1_percent": 90.0,
        "smallest_top1_percent": 70.0,
    },
]


@pytest.fixture(scope="session")
def family():
    return ofa.create_family("small_mobilenet_v3", num_classes=10, in_channels=1, resolutions=RESOLUTIONS)


@pytest.fixture(scope="session")
def archs(family):
    space = family.space
    middle = space.arch(dict(space.smallest) | {"stage1.block0.kernel": 5, "resolution": 24})
    return [space.largest, middle, space.smallest]


@pytest.fixture
def run(tmp_path, family, archs):
    """A run directory as the stages leave it, with made-up numbers."""
    run = Run(Recipe.model_validate(RECIPE), tmp_path / "run")
    target = run.target()
    target.folder.mkdir(parents=True)
    device = {"device": "ort-cpu", "processor": "<b>fast</b> & cheap", "threads": 1}
    rows = {
        (repr(block), size): Timing(0.01 + 0.002 * i, 0.001, 50)
        for i, (block, size) in enumerate(distinct_blocks(family))
    }
    checks = {arch: Timing(0.5 * (i + 1), 0.01, 50) for i, arch in enumerate(reversed(archs))}
    date, overhead = "2026-01-02T03:04:05+00:00", Timing(0.004, 0.0, 50)
    LatencyTable(
        measured=family,
        family=family,
        device=device,
        date=date,
        overhead=overhead,
        rows=rows,
        networks=checks,
        checks=checks,
    ).save(target.table_path("float32"))
    measured = [
        {"arch": dict(arch), "top1_percent": 90.0 - i, "predicted_latency_ms": 4.0 / (i + 1)}
        for i, arch in enumerate(archs)
    ]
    levels = [
        level(
            dict(arch),
            f"export/level-{i}.onnx",
            target="local",
            bytes=2**19,
            size_mib=0.5,
            accuracy_drop_percent=0.25,
            images_per_second=1e3 * (i + 1) / 4.4,
            top1_percent=88.125 - i,
            validation_top1_percent=90.0 - i,
            latency_ms=4.4 / (i + 1),
            latency_spread_ms=0.1,
            predicted_latency_ms=4.0 / (i + 1),
            max_abs_diff=1.5e-6,
            macs_m=5.0,
            params_m=0.38,
        )
        for i, arch in enumerate(archs)
    ]
    charges = [(100.0, False, 0), (50.0, False, 1), (0.0, False, 2), (50.0, True, 0), (100.0, True, 0)]
    steps = [
        ReplayStep(percent, charging, level, 88.125 - level, 14, 16, 4.5 / (level + 1))
        for percent, charging, level in charges
    ]
    target.path("export").mkdir()
    write_records(target.folder, Level, levels)
    write_records(target.folder, ReplayStep, steps)
    write_json(run.path("samples.json"), {"fingerprint": "0", "samples": measured})
    front = [
        entry | {"precision": "float32", "estimated_top1_percent": entry["top1_percent"] - 0.5}
        for entry in measured[::-1]
    ]
    write_json(target.path("front.json"), {"n_evaluated": 9192, "verified": 3, "front": front, "levels": []})
    write_json(
        run.path("predictor.json"),
        {
            "kendall_tau": 0.625,
            "rmse_percent": 1.375,
            "regret_percent": 0.25,
            "coverage_percent": 91.5,
            "n_archs": 3,
            "measured_percent": [80.0, 81.0, 82.0],
            "predicted_percent": [80.5, 80.75, 82.5],
        },
    )
    write_json(run.path("stages.json"), {"train": {"seconds": 256.0}, "fit": {"seconds": 2.2}})
    finished = {name: all_stages()[name] for name in ("export", "bundle")}
    records = {
        name: {"fingerprint": target.fingerprint(stage), "seconds": 1.5, "finished": "2026-01-01"}
        for name, stage in finished.items()
    }
    write_json(target.path("stages.json"), records)
    write_text(run.path("train.jsonl"), "".join(json.dumps(epoch) + "\n" for epoch in EPOCHS))
    return run
