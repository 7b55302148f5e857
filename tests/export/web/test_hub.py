import threading
import time

import pytest

from export.http_server import RefusedError
from export.web import hub as hub_module
from export.web.hub import Hub, read_about

ABOUT = {"processor": "Phone 7", "os": "Android 15", "browser": "Chromium 156"}


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(hub_module, "_POLL_S", 0.05)
    return Hub()


def answering(hub, name, answer, owner="me"):
    """Take one job as a page and answer it; returns the thread and the list that the job is put into."""
    taken = []

    def page():
        while (job := hub.next_job(name, owner, None)) is None:
            pass
        taken.append(job)
        hub.next_job(name, owner, {"job": job["id"]} | answer)

    thread = threading.Thread(target=page, daemon=True)
    thread.start()
    return thread, taken


def test_a_job_goes_to_its_page_and_the_answer_back(hub):
    name = hub.join("me", ABOUT)
    _, taken = answering(hub, name, {"about": {"runtime_version": "1.30", "clock": "fine"}})
    assert hub.start(name, "wasm", 2) == {"runtime_version": "1.30", "clock": "fine"}
    assert taken == [{"id": taken[0]["id"], "do": "start", "backend": "wasm", "threads": 2}]
    _, taken = answering(hub, name, {})
    digest = hub.load(name, b"a model")
    assert taken[0]["model"] == digest
    time.sleep(0.01)  # a page cannot have run for longer than it had
    _, taken = answering(hub, name, {"milliseconds": [0.001, 0, 0.0005]})
    assert hub.run(name, digest, 3) == [0.001, 0.0, 0.0005]
    assert (taken[0]["model"], taken[0]["n"]) == (digest, 3)


def test_a_model_is_served_only_to_the_page_that_loads_it(hub):
    name, other = hub.join("me", ABOUT), hub.join("me", ABOUT)
    asked = threading.Thread(target=hub.load, args=(name, b"a model"), daemon=True)
    asked.start()
    while (job := hub.next_job(name, "me", None)) is None:
        pass
    assert hub.model(name, "me", job["model"]) == b"a model"
    for page, owner, digest in ((other, "me", job["model"]), (name, "you", job["model"]), (name, "me", "0" * 64)):
        with pytest.raises(RefusedError):
            hub.model(page, owner, digest)
    hub.next_job(name, "me", {"job": job["id"]})
    asked.join()
    with pytest.raises(RefusedError):
        hub.model(name, "me", job["model"])


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "times",
    [None, "1", {}, [], [1], [1, 1, 1], [1, -1], [1, NAN], [1, INFINITE], [1, True], [1, None], [1, "1"], [1, 1e9]],
)
def test_times_that_are_none_are_refused(hub, times):
    name = hub.join("me", ABOUT)
    answering(hub, name, {"milliseconds": times})
    with pytest.raises(RefusedError) as refused:
        hub.run(name, "model", 2)
    assert refused.value.status == 502


def test_what_a_page_fails_at_is_told_on_one_line(hub):
    name = hub.join("me", ABOUT)
    answering(hub, name, {"error": "no operator\nGelu\x00" + "x" * 1000})
    with pytest.raises(RefusedError, match=r"^no operatorGelux+$") as refused:
        hub.load(name, b"")
    assert refused.value.status == 422
    assert len(str(refused.value)) <= 200
    answering(hub, name, {"error": "not loaded", "unknown": True})
    with pytest.raises(RefusedError) as refused:
        hub.run(name, "model", 1)
    assert refused.value.status == 404


def test_a_page_that_leaves_ends_its_job_and_the_others_go_on(hub):
    name, other = hub.join("me", ABOUT), hub.join("me", ABOUT)
    threading.Timer(0.05, hub.leave, (name, "me")).start()
    with pytest.raises(RefusedError, match="has left") as refused:
        hub.run(name, "model", 1)
    assert refused.value.status == 503
    assert [page.id for page in hub.pages()] == [other]
    with pytest.raises(RefusedError, match="has left"):
        hub.run(name, "model", 1)
    with pytest.raises(RefusedError, match="open it again") as refused:
        hub.next_job(name, "me", None)
    assert refused.value.status == 404


def test_a_page_that_says_nothing_is_lost(hub, monkeypatch):
    monkeypatch.setattr(hub_module, "_SILENT_S", 0.0)
    name = hub.join("me", ABOUT)
    with pytest.raises(RefusedError, match="has left"):
        hub.run(name, "model", 1)
    assert hub.pages() == []


def test_a_page_that_takes_too_long_is_lost_but_not_while_it_is_hidden(hub, monkeypatch):
    monkeypatch.setattr(hub_module, "JOB_S", 0.0)
    name = hub.join("me", ABOUT)
    hub.alive(name, "me", True)
    answering(hub, name, {"milliseconds": [0.0]})
    assert hub.run(name, "model", 1) == [0.0]
    hub.alive(name, "me", False)
    with pytest.raises(RefusedError, match="took too long"):
        hub.run(name, "model", 1)


def test_an_answer_to_an_earlier_job_changes_nothing(hub):
    name = hub.join("me", ABOUT)
    assert hub.next_job(name, "me", {"job": 12345, "milliseconds": [1]}) is None
    for answer in ("x", [], 1, {}, {"job": "1"}, {"job": None}, {"job": True}):
        with pytest.raises(RefusedError):
            hub.next_job(name, "me", answer)


def test_a_job_whose_hand_over_was_lost_is_given_again(hub):
    name = hub.join("me", ABOUT)
    done = []
    threading.Thread(target=lambda: done.append(hub.run(name, "model", 1)), daemon=True).start()
    jobs = []
    while len(jobs) < 2:
        job = hub.next_job(name, "me", None)
        jobs += [job] if job else []
    assert jobs[0] == jobs[1]
    hub.next_job(name, "me", {"job": jobs[0]["id"], "milliseconds": [0.0]})
    while not done:
        time.sleep(0.01)
    assert done == [[0.0]]


@pytest.mark.parametrize("about", [None, [], {}, {"processor": "x"}, ABOUT | {"os": 5}, ABOUT | {"browser": None}])
def test_a_page_must_say_what_it_is(about):
    with pytest.raises(RefusedError, match="does not say processor, os, browser"):
        read_about(about)


def test_descriptions_are_short_and_without_control_characters():
    given = {"processor": "<b>\n\x1b[31m" + "x" * 5000, "os": "", "browser": "\u202e\x7fok", "more": "y"}
    assert read_about(given) == {"processor": "<b>[31m" + "x" * 191, "os": "unknown", "browser": "ok"}


def test_there_are_not_more_than_32_pages(hub):
    for _ in range(32):
        hub.join("me", ABOUT)
    with pytest.raises(RefusedError, match="close some"):
        hub.join("me", ABOUT)
