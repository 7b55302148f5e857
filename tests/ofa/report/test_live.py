import json

from ofa.core.files import write_json
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages
from ofa.report.live import live


def states(run):
    return {(stage["of"], stage["name"]): stage["state"] for stage in live(run)["stages"]}


def test_a_run_that_is_finished_has_all_charts(run):
    shown = live(run)
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["name"], shown["report"]) == ("tiny", False)
    assert list(shown["charts"]) == ["training", "measured", "fronts"]
    assert all(figure["data"] and figure["layout"] for figure in shown["charts"].values())
    sampled = shown["charts"]["measured"]["data"][0]
    assert len(sampled["y"]) == len(run.read_json("samples.json")["samples"])
    run.path("report.html").write_text("")
    assert live(run)["report"]


def test_a_run_that_has_just_begun_has_none(run, tmp_path):
    begun = Run(run.recipe, tmp_path / "begun")
    shown = live(begun)
    assert (shown["charts"], shown["report"]) == ({}, False)
    assert {stage["state"] for stage in shown["stages"]} == {"waiting"}
    assert {stage["name"] for stage in shown["stages"]} == set(all_stages()) - {"finetune"}


def test_half_a_file_is_no_chart(run):
    run.path("train.jsonl").write_text('{"epoch": 1, "stra')
    run.target().path("front.json").write_text("{}")
    assert list(live(run)["charts"]) == ["measured"]


def test_the_states_of_stages(run):
    records = {
        "train": {"fingerprint": run.fingerprint(all_stages()["train"]), "seconds": 2.0, "finished": "2026-01-01"},
        "sample": {"fingerprint": "x", "seconds": 1.0, "finished": None},
    }
    write_json(run.path("stages.json"), records)
    assert states(run)["run", "train"] == "finished"
    assert states(run)["run", "sample"] == "stopped"
    assert states(run)["run", "fit"] == "waiting"
    assert states(run)["local", "export"] == "finished"
    assert states(run)["local", "search"] == "waiting"
    about = {"stage": "sample", "done": 3, "total": 9, "message": "accuracy 91.0%", "time": 0.0}
    write_json(run.path("progress.json"), about)
    (sample,) = [stage for stage in live(run)["stages"] if stage["name"] == "sample"]
    assert sample["silent_s"] > 1e6
    assert {key: sample[key] for key in ("state", "done", "total", "message")} == {
        "state": "working",
        "done": 3,
        "total": 9,
        "message": "accuracy 91.0%",
    }
