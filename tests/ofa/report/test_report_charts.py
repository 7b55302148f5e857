import pytest

from ofa.report import charts
from ofa.report.archs import arch_lines
from ofa.report.content import gather


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_accuracy_over_latency_shows_the_numbers_of_the_files(run):
    (content,) = gather(run).targets
    figure = charts.accuracy_over_latency(content.samples, content.front, content.levels)
    samples, front, levels = figure.data
    assert list(samples.x) == [sample["predicted_latency_ms"] for sample in content.samples]
    assert list(samples.y) == [90.0, 89.0, 88.0]
    assert list(front.x) == [4 / 3, 2.0, 4.0]
    assert list(front.y) == [87.5, 88.5, 89.5]
    assert list(levels.x) == [4.4, 2.2, 4.4 / 3]
    assert list(levels.y) == [88.125, 87.125, 86.125]
    assert list(levels.text) == ["0", "1", "2"]
    assert ["validation" in trace.name for trace in figure.data] == [True, True, False]
    assert "test" in levels.name


def test_the_fronts_of_all_targets_are_in_one_chart(run):
    (target,) = gather(run).targets
    figure = charts.fronts({target.name: target.front, "<b>other</b>": target.front[:1]})
    assert [trace.name for trace in figure.data] == ["local", "&lt;b&gt;other&lt;/b&gt;"]
    assert [list(trace.x) for trace in figure.data] == [[4 / 3, 2.0, 4.0], [4 / 3]]
    assert [list(trace.y) for trace in figure.data] == [[87.5, 88.5, 89.5], [87.5]]
    assert len({trace.marker.color for trace in figure.data}) == 2


def test_sampled_latencies_are_those_of_the_table(run, archs):
    table = run.target().latency_table()
    assert [s["predicted_latency_ms"] for s in gather(run).targets[0].samples] == table(
        run.family.space.rows(archs)
    ).tolist()


def test_every_point_says_its_arch(run, archs):
    (content,) = gather(run).targets
    samples, front, levels = charts.accuracy_over_latency(content.samples, content.front, content.levels).data
    for trace, expected in ((samples, archs), (front, archs[::-1]), (levels, archs)):
        for text, arch in zip(trace.hovertext, expected, strict=True):
            assert text.endswith("<br>".join(arch_lines(arch)))


def test_choice_names_are_escaped_in_hover_texts():
    entry = {"arch": {"<script>": 1}, "predicted_latency_ms": 1.0}
    entry |= {"top1_percent": 1.0, "estimated_top1_percent": 1.0}
    figure = charts.accuracy_over_latency([entry], [entry], [])
    assert all("&lt;script&gt; 1" in trace.hovertext[0] for trace in figure.data[:2])


@pytest.mark.parametrize(("latencies", "kind"), [([1.0, 5.0], None), ([1.0, 5.1], "log"), ([0.01, 30.0], "log")])
def test_latencies_over_a_wide_range_have_a_logarithmic_axis(latencies, kind):
    accuracies = {"top1_percent": 1.0, "estimated_top1_percent": 1.0}
    entries = [{"arch": {"a": 1}, "predicted_latency_ms": ms} | accuracies for ms in latencies]
    axis = charts.accuracy_over_latency(entries, entries, []).layout.xaxis
    assert axis.type == kind
    if kind:
        assert sum(latencies[0] <= tick <= latencies[1] for tick in axis.tickvals) >= 3


def test_latency_agreement_shows_checks_levels_and_the_diagonal(run):
    (content,) = gather(run).targets
    found = traces(charts.latency_agreement(content.checks, content.levels))
    assert list(found["whole networks"].x) == [0.5, 1.0, 1.5]
    assert list(found["whole networks"].y) == [check["predicted_latency_ms"] for check in content.checks]
    assert list(found["levels, numbered"].x) == [4.4, 2.2, 4.4 / 3]
    assert list(found["levels, numbered"].y) == [4.0, 2.0, 4 / 3]
    assert found["equal"].x == found["equal"].y


def test_accuracy_agreement_shows_archs_left_out():
    found = traces(charts.accuracy_agreement([80.0, 81.0], [80.5, 80.25]))
    assert list(found["archs left out"].x) == [80.0, 81.0]
    assert list(found["archs left out"].y) == [80.5, 80.25]
    assert charts.accuracy_agreement([80.0], [80.0]).layout.xaxis.range == (79.0, 81.0)


def test_training_shows_losses_accuracies_and_phases(run):
    figure = charts.training(gather(run).epochs)
    assert [list(trace.y) for trace in figure.data] == [
        [2.0, 1.5, 1.25],
        [40.0, 80.0, 90.0],
        [None, 1.75, 1.5],
        [9.0, 60.0, 70.0],
        [None, 1.6, 1.4],
    ]
    assert [(a.text, a.x) for a in figure.layout.annotations] == [("full", 0.5), ("sandwich", 1.5)]
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(0.5, 1.5)] * 2 + [(1.5, 3.5)] * 2


def test_battery_shows_the_replay_and_where_it_charges(run):
    figure = charts.battery(gather(run).targets[0].replay)
    assert [list(trace.y) for trace in figure.data] == [
        [100.0, 50.0, 0.0, 50.0, 100.0],
        [0, 1, 2, 0, 0],
        [88.125, 87.125, 86.125, 88.125, 88.125],
        [4.5, 2.25, 1.5, 4.5, 4.5],
    ]
    assert {(s.x0, s.x1) for s in figure.layout.shapes} == {(2.5, 4.5)}
    assert [a.text for a in figure.layout.annotations] == ["charging"]
