from concurrent.futures import ThreadPoolExecutor

from export.policies.battery import Battery
from export.policies.served import Served

BATTERY = Battery(50.0, charging=False)


def test_images_add_up_and_latencies_are_those_since_the_last_observation():
    served = Served(2)
    for latency_ms in (1.0, 9.0, 2.0):
        served.add(0, 3, latency_ms)
    seen = served.observe(5.0, BATTERY)
    assert (seen.time_s, seen.battery, seen.images, seen.level, seen.latency_ms) == (5.0, BATTERY, (9, 0), 0, 2.0)
    assert served.observe(6.0, BATTERY).latency_ms is None
    assert served.observe(6.0, BATTERY).images == (9, 0)


def test_latencies_of_the_level_before_are_forgotten():
    served = Served(2)
    served.add(0, 1, 100.0)
    served.add(1, 1, 3.0)
    seen = served.observe(0.0, BATTERY)
    assert (seen.level, seen.latency_ms, seen.images) == (1, 3.0, (1, 1))


def test_no_image_is_lost_between_threads():
    served = Served(2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: served.add(i % 2, 1, 1.0), range(4000)))
    assert served.observe(0.0, BATTERY).images == (2000, 2000)
