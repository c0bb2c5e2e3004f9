import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from alpacafarm.report import render
from alpacafarm.report.render import RunReport, report_html, write_report
from alpacafarm.report.result import Result

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text, as a browser would take them apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def html(run) -> str:
    return report_html(run)


@pytest.fixture(scope="module")
def plain(run) -> RunReport:
    """Without curves, which take most of the time."""
    return replace(run, logs={})


def test_hostile_answers_stay_text(html):
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    # Two answers and an instruction; in the spec, the quotes are JSON's.
    assert page.text.count("<script>alert('x')</script> \"quoted\" & <img src=") == 3


@pytest.mark.parametrize("field", ["name", "method", "model", "outputs", "version"])
def test_every_string_of_the_result_is_escaped(plain, field):
    hostile = replace(plain.result, **{field: "\"><script>alert('x')</script>"})
    page = Page(report_html(replace(plain, result=hostile)))
    assert "script" not in page.tags


def test_names_of_stages_and_metrics_are_escaped(run, log):
    hostile = '"><script>x</script>'
    stages = tuple(replace(line, name=hostile, folder=hostile) for line in run.result.stages)
    result = replace(run.result, stages=stages)
    page = Page(report_html(replace(run, result=result, logs={hostile: log[:2]})))
    assert "script" not in page.tags


def test_tags_are_balanced(html):
    assert Page(html).open == []


def test_page_refers_to_nothing_outside_itself(html):
    page = Page(html)
    links = [
        value for name, value in page.attributes if name in ("src", "href", "xlink:href", "data", "action")
    ]
    assert links
    assert [value for value in links if not value.startswith("#")] == []
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_page_holds_the_numbers_and_what_they_mean(html):
    text = Page(html).text
    for part in ("61.4 %", "63.1", "60.0", "49.8", "1.284", "9.417", "0.210", "214.7"):
        assert part in text
    for part in ("world pool", "four fixed draws", "A tie counts one half", "estimated with k1", "corrected"):
        assert part in text


def test_page_holds_stage_times_and_throughput(html):
    text = Page(html).text
    for part in (
        "2 min 23 s",
        "8,422",
        "132.4",
        "1.18",
        "912 MB",
        "collect 1 min 20 s",
        "init: sft, reward: rm",
    ):
        assert part in text


def test_page_holds_curves_lineage_spec_and_versions(html):
    labels = re.findall(r'aria-label="([^"]+)"', html)
    assert labels == ["Win rates", "Training curves of sft", "Training curves of ppo", "Lineage"]
    assert "<details>" in html
    assert "kl_coef" in html
    assert "2.13.0" in html


def test_several_versions_of_a_library_are_all_named(run):
    other = {**run.manifests[0], "versions": {"torch": "2.12.1"}}
    assert render.versions(replace(run, manifests=[*run.manifests, other]))["torch"] == "2.13.0, 2.12.1"


def test_a_run_without_evaluation_has_a_page():
    html = report_html(RunReport(Result("x", "rm", None, "world", "world", 0)))
    assert "This run made no evaluation." in html
    assert "nan" not in Page(html).text.lower().split()


def test_the_same_run_gives_the_same_page(run, html):
    assert report_html(run) == html


def test_control_characters_and_half_characters_are_shown_not_sent(plain, tmp_path):
    odd = replace(plain.samples[0], after="a\x00b\x1bc\ud800d\u202ee")
    write_report(tmp_path / "report.html", replace(plain, samples=[odd]))
    assert "a\\x00b\\x1bc\\ud800d\\u202ee" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_report_is_written_whole_and_nothing_is_left_beside_it(plain, tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_report(path, plain)
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr(render, "report_html", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(path, plain)
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
