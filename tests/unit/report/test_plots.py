import math
import re
import xml.etree.ElementTree as ET

import pytest

from alpacafarm.report import plots
from alpacafarm.report.plots import RunPoint
from alpacafarm.report.result import Measure, Reading, measures

POINTS = [
    RunPoint("kl 0.02", 0.4, 55.0, 58.0, 1.2, 1.1),
    RunPoint("kl 0.02", 1.1, 60.0, 66.0, 1.2, 1.1),
    RunPoint("kl 0 & $x", 0.6, 52.0, None),
    RunPoint("kl 0 & $x", 1.8, 38.0, 67.0),
]


def draw(log, result) -> dict[str, str]:
    return {
        "curves": plots.curves(log, title="ppo"),
        "intervals": plots.intervals(measures(result, Reading())),
        "overoptimisation": plots.overoptimisation(POINTS),
    }


@pytest.fixture(scope="module")
def drawings(log, result) -> dict[str, str]:
    return draw(log, result)


def words(svg: str) -> str:
    return " ".join(
        "".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag.endswith("text")
    )


def test_the_same_numbers_give_the_same_bytes(log, result, drawings):
    assert draw(log, result) == drawings


def test_drawings_are_one_svg_element_without_outside_references(drawings):
    for svg in drawings.values():
        assert svg.startswith("<svg ")
        assert ET.fromstring(svg).tag.endswith("svg")
        assert "<metadata" not in svg
        assert re.findall(r'(?:href|src)="(?!#)', svg) == []


def test_ids_of_two_drawings_in_one_page_differ(drawings):
    seen: set[str] = set()
    for svg in drawings.values():
        ids = set(re.findall(r'\bid="([^"]+)"', svg))
        assert ids
        assert not ids & seen
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= ids
        seen |= ids


def test_colours_follow_the_page(drawings):
    for svg in drawings.values():
        assert plots.INK not in svg
        assert plots.FAINT not in svg
        assert "currentColor" in svg
        assert "var(--series-0, #0072b2)" in svg


def test_curves_draw_what_was_logged_and_skip_the_rest(drawings):
    shown = words(drawings["curves"])
    for name in ("Loss", "Reward", "KL to reference", "k1", "k3", "Response length", "Entropy"):
        assert name in shown
    for name in ("Responses that end", "Gradient norm", "Learning rate", "nats per response", "step"):
        assert name in shown
    assert "Accuracy" not in shown


def test_curves_keep_only_the_names_asked_for(log):
    shown = words(plots.curves(log, ["loss"]))
    assert "Loss" in shown
    assert "Reward" not in shown


def test_a_metric_without_a_panel_gets_one_when_asked_for():
    rows = [{"step": 1, "loss": 0.3, "clip_fraction": 0.1}]
    assert "clip_fraction" in words(plots.curves(rows, ["clip_fraction"]))
    assert "clip_fraction" not in words(plots.curves(rows))


@pytest.mark.parametrize("log", [[], [{"step": 1}], [{"step": 1, "loss": math.nan}]])
def test_nothing_logged_gives_no_drawing(log):
    assert plots.curves(log) == ""


def test_intervals_name_the_judge_and_the_unit(drawings):
    shown = words(drawings["intervals"])
    assert "win rate vs SFT [world pool]" in shown
    assert "null (SFT redrawn) [gold]" in shown
    assert "win rate (%)" in shown
    assert "length [" not in shown


def test_no_rates_give_no_drawing():
    assert plots.intervals([Measure("length", 3.0, None, "characters")]) == ""
    assert plots.overoptimisation([]) == ""


def test_overoptimisation_has_two_lines_for_each_run():
    shown = words(plots.overoptimisation(POINTS, x_label="sqrt KL (nats^0.5)"))
    for label in (
        "kl 0.02: gold",
        "kl 0.02: judge",
        "kl 0 & $x: gold",
        "kl 0 & $x: judge",
        "sqrt KL (nats^0.5)",
    ):
        assert label in shown


def test_a_logarithmic_axis_is_labelled_at_its_values_where_there_is_room():
    points = [RunPoint("seed=1", x, 60.0, 60.0) for x in (0.002, 0.0067, 0.0068, 0.02)]
    shown = words(plots.overoptimisation(points, x_label="kl_coef", log_x=True))
    assert shown.startswith("0.002 0.0067 0.02 kl_coef ")
    assert "math" not in shown
