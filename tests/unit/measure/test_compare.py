"""`measure compare`: what it refuses, what it reports, and what the page holds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.measure.compare import Comparison, compare
from densedpo.measure.config import CompareConfig
from densedpo.measure.page import find_evidence, write_comparison
from densedpo.measure.run import measure
from densedpo.measure.score import METRICS
from measure_example import make_project, plan_for, rendered

# ten prompts are too few for a gain to survive the correction over five claims
CONFIG = CompareConfig(claims=("visual_quality",), num_players=3, num_strips=2, num_draws=500)
NAMES = ("base", "dense", "shuffled", "autoencoder")


def compared(project: Project, *names: str) -> Comparison:
    return compare(project, "cmp", names or NAMES, command="densedpo measure compare cmp", config=CONFIG)


def written(project: Project, *names: str) -> str:
    comparison = compared(project, *names)
    evidence = find_evidence(project, comparison, run=None, pairs=None, preferences=None)
    return write_comparison(project, comparison, evidence, CONFIG).read_text()


def test_a_planted_gain_is_found_and_a_copy_of_the_base_gains_nothing(measured_project: Project) -> None:
    report = compared(measured_project).report
    assert report.headline.sentence == "dense gains visual quality over base"
    by_pair = {(d.base, d.other, d.metric): d for d in report.differences}
    copy = by_pair[("base", "shuffled", "visual_quality")]
    assert copy.estimate is not None and copy.estimate.value == 0.0
    assert copy.verdict == "not significant"
    assert by_pair[("shuffled", "dense", "visual_quality")].verdict == "better"


def test_roles_follow_the_order_and_the_ceiling_its_source(measured_project: Project) -> None:
    report = compared(measured_project).report
    assert [(m.name, m.role) for m in report.members] == [
        ("base", "base"), ("dense", "tuned"), ("shuffled", "control"), ("autoencoder", "ceiling")
    ]  # fmt: skip
    assert not any("autoencoder" in (d.base, d.other) for d in report.differences)


def test_report_json_has_n_interval_method_and_seed_for_every_number(measured_project: Project) -> None:
    written(measured_project)
    report = json.loads((measured_project.report("cmp") / "report.json").read_text())
    numbers = [d["estimate"] for d in report["differences"]]
    numbers += [m["estimates"][metric.key] for m in report["members"] for metric in METRICS]
    assert len(numbers) == 3 * len(METRICS) + 4 * len(METRICS)
    computed = [estimate for estimate in numbers if estimate is not None]
    assert len(computed) == len(numbers) - 3 - 4  # diversity needs more than one seed
    for estimate in computed:
        assert {"value", "low", "high", "n", "num_excluded", "method", "seed"} <= set(estimate)
        assert estimate["n"] == 10


class Links(HTMLParser):
    """Collects every address that the page could load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.unlabelled: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("src", "href", "poster", "srcset", "data", "xlink:href"):
            if name in given:
                self.addresses.append(given[name] or "")
        if tag == "svg" and "aria-label" not in given and given.get("aria-hidden") != "true":
            self.unlabelled.append(tag)
        if tag == "video" and not given.get("aria-label"):
            self.unlabelled.append(tag)


def test_the_page_is_whole_in_itself_and_says_what_it_shows(measured_project: Project) -> None:
    page = written(measured_project)
    links = Links()
    links.feed(page)
    assert all(address.startswith(("data:", "#")) for address in links.addresses)
    assert links.unlabelled == []
    assert not re.search(r"https?://|@import|url\(", page)
    assert page.count("<video") == 3 * 4
    assert page.count('class="strip"') == 2
    assert "Implicit accuracy" in page and "Gap of the winner" in page
    assert "n = 10 prompts" in page and "95 % interval" in page
    assert "not significant at n=10" in page


def test_same_inputs_give_the_same_page(measured_project: Project) -> None:
    assert written(measured_project) == written(measured_project)


def test_captions_are_text_and_not_markup(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", num_prompts=2)
    prompts = project.clips / "prompts.jsonl"
    rows = [json.loads(line) | {"caption": "<script>alert(1)</script>"} for line in prompts.read_text().splitlines()]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("base", "dense"):
        measure(plan_for(project, name), rendered(blur=0.3, waver=0.0, salt=0))
    page = written(project, "base", "dense")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_without_scenes_the_page_says_not_computed(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", num_prompts=2)
    for name, blur in (("base", 0.3), ("dense", 0.6)):
        measure(plan_for(project, name), rendered(blur=blur, waver=0.0, salt=0))
        scores = project.report(name) / "scores.jsonl"
        rows = [json.loads(line) for line in scores.read_text().splitlines()]
        for row in rows:
            for key in ("visual_quality", "temporal_consistency", "text_alignment", "dynamic_degree"):
                row["values"][key] = None
        scores.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = written(project, "base", "dense")
    assert page.count("not computed") >= 4 * 3
    assert "object motion" in page


def test_other_prompts_or_seeds_are_refused(measured_project: Project) -> None:
    measure(plan_for(measured_project, "other", seed=7), rendered(blur=1.0, waver=0.0, salt=0))
    with pytest.raises(BadInput, match=r"'base' and 'other' were measured with different seed \(0 and 7\)"):
        compared(measured_project, "base", "other")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("base", "missing"), "no report at reports/missing"),
        (("base", "base"), "named once"),
        (("base", "cmp"), "cannot be named like a report"),
        (("base", "autoencoder"), "at least one more report of a model"),
        (("autoencoder", "base"), "the base of a comparison is a model"),
    ],
)
def test_what_cannot_be_compared_is_refused(measured_project: Project, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compared(measured_project, *names)


def test_a_comparison_cannot_be_compared_or_take_the_name_of_a_run(measured_project: Project) -> None:
    written(measured_project)
    with pytest.raises(BadInput, match="'cmp' is a comparison"):
        compare(measured_project, "again", ["base", "cmp"], command="", config=CONFIG)
    comparison = compare(measured_project, "shuffled", ["base", "dense"], command="", config=CONFIG)
    evidence = find_evidence(measured_project, comparison, run=None, pairs=None, preferences=None)
    with pytest.raises(BadInput, match=r"reports/shuffled is a report of `measure run`"):
        write_comparison(measured_project, comparison, evidence, CONFIG)


def test_preferences_for_other_pairs_are_refused(measured_project: Project) -> None:
    path = measured_project.preferences("oracle")
    path.write_text(path.read_text().replace("guided-0001", "guided-9999"))
    comparison = compare(measured_project, "cmp", ["base", "dense"], command="", config=CONFIG, allow_stale=True)
    evidence = find_evidence(measured_project, comparison, run="dense", pairs="guided", preferences="oracle")
    with pytest.raises(BadInput, match=r"preferences/oracle\.jsonl: pair 'guided-9999' is not in pairs/guided"):
        write_comparison(measured_project, comparison, evidence, CONFIG, allow_stale=True)


def test_a_stale_report_is_refused(measured_project: Project) -> None:
    with (measured_project.clips / "prompts.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(BadInput, match="reports/base is stale"):
        compared(measured_project)
