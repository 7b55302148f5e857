import numpy as np
import pytest
from pydantic import ValidationError

from ofa.core.errors import DeviceError
from ofa.cost.energy import PowerConfig, Rapl, energy_mj, measure_energy_mj

RANGE_UJ = 262143328850


@pytest.fixture
def powercap(tmp_path):
    """The folder in which Linux shows the counters of a machine with two packages; `set_uj` sets one."""

    def zone(name, folder, value):
        (tmp_path / folder).mkdir()
        for file, text in {"name": name, "max_energy_range_uj": RANGE_UJ, "energy_uj": value}.items():
            (tmp_path / folder / file).write_text(f"{text}\n")

    (tmp_path / "intel-rapl").mkdir()  # not a counter, but the kind of counter
    zone("package-0", "intel-rapl:0", 1_000_000)
    zone("core", "intel-rapl:0:0", 600_000)
    zone("dram", "intel-rapl:0:1", 50_000)
    zone("package-1", "intel-rapl:1", 2_000_000)
    zone("psys", "intel-rapl:2", 9_000_000)
    zone("package-0", "intel-rapl-mmio:0", 1_000_000)
    return tmp_path


def set_uj(powercap, zone, value):
    (powercap / zone / "energy_uj").write_text(f"{value}\n")


def test_the_energy_is_the_power_times_the_latency_plus_that_of_the_operations():
    latency_ms, macs_m = np.array([1.0, 20.0, 3.0]), np.array([0.0, 100.0, 2000.0])
    assert energy_mj(latency_ms, macs_m, PowerConfig(busy_w=5)) == pytest.approx([5, 100, 15])
    power = PowerConfig(busy_w=5, idle_w=2, macs_pj=4.0)
    assert energy_mj(latency_ms, macs_m, power) == pytest.approx([3, 60 + 0.4, 9 + 8])
    assert energy_mj(latency_ms[:0], macs_m[:0], power).shape == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "busy_w"),
        ({"busy_w": 0}, "greater than 0"),
        ({"busy_w": 3, "idle_w": -1}, "greater than or equal to 0"),
        ({"busy_w": 3, "idle_w": 3.5}, "idle_w = 3.5 is not below busy_w = 3; lower it"),
        ({"busy_w": 3, "macs_pj": -1}, "greater than or equal to 0"),
        ({"busy_w": float("inf")}, "finite"),
        ({"busy_w": 1e7}, "less than or equal to 1000000"),
        ({"busy_w": 3, "watts": 1}, "not permitted"),
    ],
)
def test_a_power_model_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        PowerConfig(**values)


def test_packages_and_their_memory_are_counted_but_no_part_twice(powercap):
    rapl = Rapl.find(powercap)
    assert [zone.name for zone in rapl.zones] == ["intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"]
    assert rapl.read_uj() == (1_000_000, 50_000, 2_000_000)


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_a_machine_without_counters_has_none(tmp_path, folder):
    assert Rapl.find(tmp_path / folder) is None


def test_the_energy_of_a_run_is_the_mean_over_all_runs_and_the_untimed_one(powercap):
    asked = []

    def runner(n):
        asked.append(n)
        for zone, value in (("0", 1_300_000), ("0:1", 80_000), ("1", 2_500_000), ("0:0", 700_000), ("2", 10_000_000)):
            set_uj(powercap, f"intel-rapl:{zone}", value)
        return [1.0] * n

    energy = measure_energy_mj(runner, 9, Rapl.find(powercap))
    assert energy == pytest.approx((300 + 30 + 500) / 10)
    assert asked == [9]


def test_a_counter_may_wrap_around(powercap):
    set_uj(powercap, "intel-rapl:0", RANGE_UJ - 100_000)
    rapl = Rapl.find(powercap)

    def runner(n):
        set_uj(powercap, "intel-rapl:0", 300_000)
        return [1.0] * n

    assert measure_energy_mj(runner, 3, rapl) == pytest.approx(400 / 4)


def test_counters_that_do_not_advance_and_no_runs_are_errors(powercap):
    rapl = Rapl.find(powercap)
    with pytest.raises(DeviceError, match="did not advance during 5 runs; give more runs"):
        measure_energy_mj(lambda n: [], 5, rapl)
    with pytest.raises(DeviceError, match="n = 0 runs are not allowed; give at least 1"):
        measure_energy_mj(lambda n: [], 0, rapl)


def test_counters_that_may_not_be_read_are_one_clear_error(powercap, monkeypatch):
    """Since Linux 5.10, only root may read them; tests may run as root."""
    path_type, rapl = type(powercap), Rapl.find(powercap)
    read_text = path_type.read_text

    def refused(path, *arguments, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(path_type, "read_text", refused)
    message = r"intel-rapl:0/energy_uj cannot be read \(Permission denied; by default only root may read energy\)"
    with pytest.raises(DeviceError, match=message):
        Rapl.find(powercap)
    with pytest.raises(DeviceError, match=message):
        measure_energy_mj(lambda n: [], 5, rapl)


def test_counters_that_vanish_or_hold_no_number_are_errors(powercap):
    rapl = Rapl.find(powercap)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("none\n")
    with pytest.raises(DeviceError, match=r"intel-rapl:1/energy_uj holds 'none', not a number of microjoules"):
        rapl.read_uj()
    (powercap / "intel-rapl:0" / "max_energy_range_uj").unlink()
    with pytest.raises(DeviceError, match=r"max_energy_range_uj cannot be read \(No such file or directory;"):
        Rapl.find(powercap)
