"""A level with made-up values, for the tests that need one."""

from ofa.pipeline.levels import Level


def level(arch, file, **changes):
    """Return a float32 level of the target `laptop`; `changes` override its values."""
    values = {
        "target": "laptop",
        "format": "onnx",
        "precision": "float32",
        "bytes": 2**20,
        "size_mib": 1.0,
        "top1_percent": 90.0,
        "accuracy_drop_percent": 0.0,
        "same_top1_percent": 100.0,
        "max_abs_diff": 1e-6,
        "validation_top1_percent": 91.0,
        "measured": True,
        "batch": 1,
        "latency_ms": 2.0,
        "latency_spread_ms": 0.1,
        "predicted_latency_ms": 2.1,
        "images_per_second": 500.0,
        "energy_mj": None,
        "macs_m": 5.0,
        "params_m": 0.4,
        "peak_activation_mib": 0.1,
    }
    return Level(arch=arch, file=file, **values | changes)
