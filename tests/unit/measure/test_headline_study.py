"""The studies of the paper's table: every file plans, and claims are decided by the rules that were declared."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.measure.records import read_measured
from densedpo.measure.run import measure
from densedpo.metrics.statistics import Estimate, TwoWayDifference
from measure_example import make_project, plan_for, rendered
from study_modules import HEADLINE, HEADLINE_STUDIES, study_modules


@pytest.fixture(scope="module")
def headline():
    """Modules of benchmarks/headline by name."""
    with study_modules("headline") as modules:
        yield modules


@pytest.mark.parametrize("path", HEADLINE_STUDIES, ids=lambda path: path.stem)
def test_every_study_parses_and_plans(headline, path: Path):
    study = headline["study"].load_study(path)
    plan = headline["plan"].plan(study)
    assert plan.num_runs == sum(len(arm.seeds or study.seeds) for arm in study.arms.values())
    assert plan.num_pairs == sum(study.pairs[name].num_pairs for name in study.used_pairs())
    assert plan.seconds > 0
    for labels in study.used_labels().values():
        # a tenth of the pairs are for validation, by chance: room for three standard deviations more
        most = study.pairs[labels.pairs].num_pairs
        assert (labels.num_pairs or 0) <= 0.9 * most - 3 * np.sqrt(0.09 * most)
    num_sources = study.data.world.num_clips - (study.data.world.num_held_out or 0)
    assert max(pairs.num_pairs for pairs in study.used_pairs().values()) <= num_sources


def test_the_main_study_in_counts(headline):
    """5 arms of 5 seeds; 1120 pairs of each kind; base and 25 runs with 512 + 32 * 4 clips; 60 steps of 16 pairs."""
    plan = headline["plan"].plan(headline["study"].load_study(HEADLINE / "headline.toml"))
    assert (plan.num_runs, plan.num_pairs, plan.num_pair_visits) == (25, 2240, 25 * 60 * 16)
    assert (plan.num_measured_clips, plan.num_decoded_clips) == (26 * 640, 512)


@pytest.mark.parametrize("path", HEADLINE_STUDIES[2:], ids=lambda path: path.stem)
def test_an_ablation_shares_what_it_can_with_the_main_study(headline, path: Path):
    """In one project nothing that both need is made twice: same data, pairs, labels and runs of DenseDPO.

    Reports are of fewer of the same prompts, and stand beside the main study's.
    """
    main, ablation = (headline["study"].load_study(each) for each in (HEADLINE / "headline.toml", path))
    assert (ablation.data, ablation.model) == (main.data, main.model)
    assert ablation.measure == main.measure.model_copy(update={"num_prompts": 192})
    assert headline["study"].report_name("base", ablation.measure) == "base-192x1"
    assert headline["study"].report_name("base", main.measure) == "base-512x1"
    for name, pairs in main.pairs.items():
        assert ablation.pairs[name] == pairs
    for name, labels in main.labels.items():
        assert ablation.labels[name] == labels
    both = [study.config_of(study.arms["dense_dpo"], seed=1) for study in (main, ablation)]
    assert both[0] == both[1]
    assert {run.name for run in ablation.runs() if run.arm == "dense_dpo"} == {"dense_dpo-0", "dense_dpo-1"}
    assert all(ablation.arms[name] == main.arms[name] for name in ablation.arms.keys() & main.arms.keys())
    # what differs from the main study is what the ablation is about: no arm repeats another
    configs = [(arm.labels, str(ablation.config_of(arm, seed=0))) for arm in ablation.arms.values()]
    assert len(set(configs)) == len(configs)


def test_a_reduced_study_is_less_of_the_same_and_says_so(headline):
    """A quarter of 1120 pairs, 320 and 960 labels, 1128 training clips, 512 prompts, and the 64 of diversity."""
    names = headline["reduction"]
    by = names.Reduction(seeds=2, prompts=128, pairs=0.25, steps=60)
    study = names.reduced(headline["study"].load_study(HEADLINE / "headline.toml"), by)
    assert by.label == "seeds2-prompts128-pairs0.25-steps60"
    assert [pairs.num_pairs for pairs in study.pairs.values()] == [280, 280]
    assert [labels.num_pairs for labels in study.labels.values()] == [80, 240, 240]
    assert (study.data.world.num_clips, study.data.world.num_held_out) == (282 + 128, 128)
    assert (study.measure.num_prompts, study.diversity.num_prompts) == (128, 8)
    assert {study.config_of(arm, seed=0).num_steps for arm in study.arms.values()} == {60}
    assert (len(study.runs()), study.seeds) == (10, (0, 1))
    assert names.reduced(study, names.Reduction()) is study
    assert names.Reduction().label == ""


def test_what_labels_buy_is_read_off_the_arms_that_differ_in_how_many_they_have(headline):
    """Gains of 0, 1 and 2 thousandths from 160, 320 and 640 pairs: 0.7 is reached at 160 * 2^0.7."""
    study = headline["study"].load_study(HEADLINE / "ablations" / "labels.toml")
    prompts = [f"p{i}" for i in range(12)]
    gains = {"half": 0.0, "dense_dpo": 0.001, "double": 0.002}
    arms = {
        arm: {"visual_quality": {(seed, prompt): 0.9 + gain for seed in (0, 1) for prompt in prompts}}
        for arm, gain in gains.items()
    }
    scores = headline["table"].Scores(base={"visual_quality": dict.fromkeys(prompts, 0.9)}, arms=arms)
    row = headline["efficiency"].efficiency(study, scores)
    assert [point["budget"] for point in row["curve"]["points"]] == [160, 320, 640]
    assert [point["score"]["value"] for point in row["curve"]["points"]] == pytest.approx([0.0, 0.001, 0.002])
    assert row["curve"]["needed"]["value"] == pytest.approx(160 * 2**0.7, rel=1e-3)
    page = headline["efficiency"].efficiency_page({"study": "labels", "efficiency": row})
    assert "DenseDPO reaches 0.000700 with 260 labelled pairs" in page
    one = headline["table"].Scores(base=scores.base, arms={"half": arms["half"]})
    assert headline["efficiency"].efficiency(study, one) is None
    main = headline["study"].load_study(HEADLINE / "headline.toml")
    assert headline["efficiency"].efficiency(main, scores) is None


def test_a_study_that_cannot_be_is_refused(headline, tmp_path: Path):
    load_study = headline["study"].load_study
    bad = {
        'extends = "main.toml"\nbeside = ["none"]': "'beside' names 'none', which is no arm of main.toml",
        'extends = "main.toml"\nbeside = ["dense_dpo"]\ncontrasts = [["dense_dpo", "sft"]]': "no arm has this name",
        'extends = "main.toml"\nbeside = ["dense_dpo"]\nseed = [1]': "'seed'",
        'extends = "gone.toml"': "no such file",
        'extends = "main.toml"\nbeside = ["dense_dpo", "sft"]\n[efficiency]\nname = "x"\narms = ["dense_dpo", "sft"]\n'
        'metric = "visual_quality"\ntarget = 0.0': "efficiency is by num_pairs of each arm's labels",
        "seeds =": "not a TOML file",
    }
    (tmp_path / "main.toml").write_text((HEADLINE / "headline.toml").read_text())
    for text, message in bad.items():
        (tmp_path / "study.toml").write_text(text + "\n")
        with pytest.raises(BadInput, match=message):
            load_study(tmp_path / "study.toml")


def difference(by_seed: list[float], low: float, high: float) -> TwoWayDifference:
    estimate = Estimate(
        value=0.0, low=low, high=high, n=512, num_values=512, num_excluded=0, method="", seed=0
    )  # fmt: skip
    return TwoWayDifference(estimate=estimate, over_prompts=estimate, over_seeds=None, by_seed=dict(enumerate(by_seed)))


def test_a_win_needs_its_interval_and_four_of_five_seeds(headline):
    direction = headline["claims"].direction
    assert direction(difference([1, 1, 1, 1, -1], 0.1, 0.9)) == "up"
    assert direction(difference([1, 1, 1, -1, -1], 0.1, 0.9)) == "not shown"
    assert direction(difference([1, 1, 1, 1, 1], -0.1, 0.9)) == "not shown"
    assert direction(difference([-1, -1, -1, -1, 1], -0.9, -0.1)) == "down"
    assert direction(difference([-1, -1, -1, 1, 1], -0.9, -0.1)) == "not shown"
    assert direction(difference([1, -1], 0.1, 0.9)) == "not shown"
    assert direction(difference([1, 1], 0.1, 0.9)) == "up"


def values(mean: float, *, salt: int, noise: float = 0.02) -> dict[tuple[int, str], float]:
    """5 training seeds and 40 prompts around a mean."""
    rng = np.random.default_rng(salt)
    return {(seed, f"p{i}"): mean + noise * rng.standard_normal() for seed in range(5) for i in range(40)}


def matched(headline, gain: float, gain_of_arm: float, *, noise: float = 0.02):
    """A claim that an arm matches one that gains so much; the base lies at 2, the margin is a fifth of the gain."""
    names = headline["study"]
    claim = names.Claim(arm="dense", metric="m", expect="matches", over="vanilla")
    base = dict.fromkeys(values(0, salt=0), 2.0)
    arm, over = values(2 + gain_of_arm, salt=1, noise=noise), values(2 + gain, salt=2)
    return headline["claims"].judged(claim, arm, base, over, names.Matching(arm="vanilla"))


def test_matching_is_a_loss_of_less_than_a_fifth_of_the_gain(headline):
    """VanillaDPO gains 1: the margin is 0.2. An arm that gains 0.9 matches, one that gains 0.7 does not.

    At a gain of 0.8 exactly the tests can exclude neither; nor can they with noise of 5, whose interval is wide.
    """
    within, better, below = (matched(headline, 1.0, gain) for gain in (0.9, 1.5, 0.7))
    assert (within.answer, better.answer, below.answer) == ("holds", "holds", "does not hold")
    assert within.why.endswith("equivalent")
    assert better.why.endswith("it may also be better by more than the margin")
    assert "a loss of 20% of the gain of vanilla (about 0.2)" in within.why
    assert matched(headline, 1.0, 0.9, noise=5.0).answer == "not shown"


def test_nothing_is_matched_where_nothing_was_gained(headline):
    verdict = matched(headline, 0.0, 0.0)
    assert verdict.answer == "cannot be tested"
    assert verdict.why.startswith("vanilla is not shown to gain anything")


@pytest.mark.parametrize(("loss", "answer"), [(0.05, "holds"), (0.2, "does not hold"), (-0.3, "holds")])
def test_keeping_is_a_loss_of_less_than_a_twentieth_of_the_level(headline, loss: float, answer: str):
    """The base's level is 2, so the margin is 0.1."""
    names = headline["study"]
    claim = names.Claim(arm="dense", metric="m", expect="keeps")
    base = dict.fromkeys(values(0, salt=0), 2.0)
    verdict = headline["claims"].judged(claim, values(2 - loss, salt=1), base, None, names.Matching(arm="vanilla"))
    assert verdict.answer == answer
    assert "a loss of 0.1 or more" in verdict.why


def test_claims_that_were_changed_after_the_beginning_are_told(headline, tmp_path: Path):
    from densedpo.core.workspace import init_project

    project, names = init_project(tmp_path / "project"), headline["study"]
    study, late = names.load_study(HEADLINE / "headline.toml"), headline["results"].declared_late
    assert not late(project, study, name="headline")
    assert not late(project, study, name="headline")
    kinder = study.model_copy(update={"matching": names.Matching(arm="vanilla_dpo", share_of_gain=0.5)})
    assert late(project, kinder, name="headline")
    assert not late(project, kinder, name="another")


@pytest.fixture(scope="module")
def reported(headline, tmp_path_factory: pytest.TempPathFactory):
    """A project with the base, its ceiling and two arms of two seeds over three prompts, and the study of them."""
    project = make_project(tmp_path_factory.mktemp("study") / "project", num_prompts=3)
    blurs = {"base": 1.2, "dense_dpo-0": 0.6, "dense_dpo-1": 0.7, "half-0": 0.9, "half-1": 1.0}
    for salt, (name, blur) in enumerate(blurs.items()):
        measure(plan_for(project, f"{name}-192x1"), rendered(blur=blur, waver=0.0, salt=salt))
    measure(plan_for(project, "ceiling-192x1", source="autoencoder"), rendered(blur=0.1, waver=0.0, salt=9))
    study = headline["study"].load_study(HEADLINE / "ablations" / "labels.toml")
    arms = {name: study.arms[name] for name in ("dense_dpo", "half")}
    efficiency = study.efficiency.model_copy(update={"arms": ("half", "dense_dpo")})
    changes = {"arms": arms, "contrasts": (("half", "dense_dpo"),), "efficiency": efficiency}
    return project, study.model_copy(update=changes)


@pytest.fixture(scope="module")
def report(headline, reported):
    """What results.json would hold, but for what training and labels leave."""
    project, study = reported
    table = headline["table"]
    scores = table.read_scores(project, study, study.runs())
    return {
        "study": "labels",
        "reduced": {},
        "declared_late": False,
        "config": study.model_dump(mode="json"),
        "levels": table.levels(project, study),
        "against_base": table.against_base(scores),
        "contrasts": table.contrasts(study, scores),
        "efficiency": headline["efficiency"].efficiency(study, scores),
        "claims": [],
        "motion_bias": [],
    }


def test_a_difference_is_the_mean_over_seeds_of_the_levels_differences(reported, report):
    project, _ = reported
    names = ("base-192x1", "dense_dpo-0-192x1", "dense_dpo-1-192x1", "half-0-192x1", "half-1-192x1")
    for metric in ("visual_quality", "sharpness", "object_motion"):
        base, *tuned = (read_measured(project, name).report.estimates[metric].value for name in names)
        dense = report["against_base"]["dense_dpo"][metric]
        assert dense["value"] == pytest.approx((tuned[0] + tuned[1]) / 2 - base, abs=1e-6)
        assert dense["by_seed"] == pytest.approx({"0": tuned[0] - base, "1": tuned[1] - base}, abs=1e-6)
        between = report["contrasts"][0]["metrics"][metric]
        assert between["value"] == pytest.approx((tuned[2] + tuned[3] - tuned[0] - tuned[1]) / 2, abs=1e-6)
        assert dense["low"] <= dense["value"] <= dense["high"]
    assert report["against_base"]["dense_dpo"]["sharpness"]["value"] > 0  # blurred half as much
    assert "diversity" not in report["against_base"]["dense_dpo"]  # one clip of each prompt: not computed, not 0


def test_base_and_ceiling_stand_in_the_table_with_what_no_label_saw(headline, report):
    text = headline["table"].table(report)
    assert "Training seeds: 2 of 2. No win can be claimed from fewer than 5:" in text
    rows = [line for line in text.splitlines() if line.startswith("| autoencoder's ceiling (level)")]
    assert len(rows) == 2  # once beside what labels judge by, once beside what no label saw
    level = report["levels"]["base"]["sharpness"]["value"]
    assert f"| {level:.4f} (" in text
    assert "object motion" in text
    assert report["levels"]["ceiling above base"]["sharpness"]["value"] > 0
    late = headline["table"].table({**report, "declared_late": True, "reduced": {"quick": True}})
    assert "read the claims as exploratory" in late
    assert "The numbers say nothing about the methods" in late


def test_results_are_small_files_that_are_the_same_again(headline, reported, report, tmp_path: Path):
    _, study = reported
    for folder in (tmp_path / "one", tmp_path / "two"):
        headline["results"].write_results(report, study, folder)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "by_seed.csv", "differences.csv", "differences.svg", "label_efficiency.html", "motion_and_quality.svg",
        "results.json", "study.toml", "table.md",
    ]  # fmt: skip
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert len((tmp_path / "one" / name).read_bytes()) < 200_000
    again = headline["study"].Study.model_validate(tomllib.loads((tmp_path / "one" / "study.toml").read_text()))
    assert again == study
    rows = list(csv.DictReader((tmp_path / "one" / "by_seed.csv").read_text().splitlines()))
    mine = [row for row in rows if (row["arm"], row["over"], row["metric"]) == ("half", "dense_dpo", "sharpness")]
    assert [row["seed"] for row in mine] == ["0", "1"]
