from __future__ import annotations

import json
import math
import shutil
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Prompt, write_jsonl
from densedpo.core.workspace import Project
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import read_preferences
from densedpo.learn.online.jury import Jury, seat_jury
from densedpo.learn.online.learning import _RoundTask
from densedpo.learn.online.run import read_online_inputs
from online_runs import online_config, rounds, rows, train_online


def test_a_run_leaves_an_adapter_and_rounds_of_ordinary_artefacts(done: Project):
    folder = done.run("small")
    assert (folder / "adapter.safetensors").is_file()
    assert (folder / "stamp.json").is_file()
    found = rounds(folder)
    assert [(row["first_step"], row["last_step"], row["num_rollouts"], row["num_pairs"]) for row in found] == [
        (0, 2, 8, 2), (2, 4, 8, 2), (4, 6, 8, 2),
    ]  # fmt: skip
    inside = Project(root=folder / "rounds" / "0001")
    chosen = PairSet.read(inside.pairs("chosen"))
    preferences = read_preferences(inside.preferences("chosen"), chosen)
    assert len(PairSet.read(inside.pairs("rollouts"))) == 4
    assert [row.clip_label != 0 for row in preferences.rows] == [True, True]


def test_every_round_is_made_by_another_policy(done: Project):
    policies = [row["policy"] for row in rounds(done.run("small"))]
    assert len(set(policies)) == 3


def test_the_loss_is_log_2_at_the_start_and_right_after_each_refresh_and_nowhere_else(done: Project):
    """6 steps, refreshed after step 3: steps 1 and 4 are the first on a reference that equals the policy."""
    losses = [row["loss"] for row in rows(done.run("small"))]
    is_log_2 = [abs(loss - math.log(2)) < 1e-6 for loss in losses]
    assert is_log_2 == [True, False, False, True, False, False]
    assert [path.name for path in sorted((done.run("small") / "references").iterdir())] == ["step-000003.safetensors"]


def test_chosen_latents_are_those_of_the_best_and_the_worst_rollout(done: Project):
    inside = Project(root=done.run("small") / "rounds" / "0000")
    rollouts, chosen = PairSet.read(inside.pairs("rollouts")), PairSet.read(inside.pairs("chosen"))
    made = [
        tensor
        for pair in rollouts
        for tensor in load_file(rollouts.folder / pair.latents).values()
    ]  # fmt: skip
    for pair in chosen:
        for tensor in load_file(chosen.folder / pair.latents).values():
            assert any(torch.equal(tensor, one) for one in made)


def test_the_same_call_again_returns_at_once_and_other_settings_are_refused(done: Project, toy_model_dir: Path):
    before = (done.run("small") / "adapter.safetensors").read_bytes()
    train_online(done, "small", toy_model_dir, online_config())
    assert (done.run("small") / "adapter.safetensors").read_bytes() == before
    with pytest.raises(BadInput, match=r"config\.online\.refresh_every was 3, is 4"):
        train_online(done, "small", toy_model_dir, online_config(refresh_every=4))


def test_a_newest_checkpoint_that_is_damaged_makes_its_round_learn_again(
    done: Project, toy_model_dir: Path, tmp_path: Path
):
    shutil.copytree(done.root, tmp_path / "again")
    again = Project(root=tmp_path / "again")
    folder = again.run("small")
    (folder / "stamp.json").unlink()
    (folder / "adapter.safetensors").unlink()
    (folder / "checkpoints" / "step-000006" / "state.safetensors").write_bytes(b"damaged")
    train_online(again, "small", toy_model_dir, online_config())
    assert rounds(folder) == rounds(done.run("small"))
    assert rows(folder) == rows(done.run("small"))
    ours, theirs = (load_file(run / "adapter.safetensors") for run in (folder, done.run("small")))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_guided_rollouts_give_a_label_for_each_segment(prompted: Project, toy_model_dir: Path):
    """9 frames at 8 fps in segments of half a second: frames 0 to 3 and 4 to 8."""
    config = online_config(
        {"objective": "dense_dpo"},
        kind="guided",
        segment_seconds=0.5,
        num_rounds=1,
        guidance_scale=1.0,
        keep_rollouts=False,
    )
    folder = train_online(prompted, "guided", toy_model_dir, config)
    inside = Project(root=folder / "rounds" / "0000")
    rollouts, chosen = PairSet.read(inside.pairs("rollouts")), PairSet.read(inside.pairs("chosen"))
    assert list((rollouts.folder / "latents").iterdir()) == []
    etas = {pair.prompt_id: pair.eta for pair in rollouts}
    assert all(pair.eta == etas[pair.prompt_id] for pair in rollouts)
    assert len(set(etas.values())) == 2
    for row in read_preferences(inside.preferences("chosen"), chosen).rows:
        assert row.ranges == ((0, 4), (4, 9))
        assert set(row.labels) <= {-1, 1}
        assert row.clip_label in (-1, 1)


def test_a_round_of_ties_trains_nothing_and_too_many_of_them_stop_the_run(prompted: Project, toy_model_dir: Path):
    config = online_config(rewards=[{"judge": "online_judges:Same"}], num_rounds=4, max_empty_rounds=2)
    with pytest.raises(BadInput, match="2 rounds in a row gave no pair"):
        train_online(prompted, "ties", toy_model_dir, config)
    folder = prompted.run("ties")
    assert [(row["num_pairs"], row["num_tied"], row["last_step"]) for row in rounds(folder)] == [(0, 2, 0)] * 2
    assert rows(folder) == []
    assert not (folder / "checkpoints").exists()


def test_the_clips_label_is_of_the_means_that_chose_the_pair_where_segments_disagree(
    prompted: Project, toy_model_dir: Path
):
    """Of two segments one each way, so that a majority would be a tie and `dpo` would have nothing to learn from."""
    rewards = [{"judge": "online_judges:Seesaw"}]
    config = online_config(rewards=rewards, segment_seconds=0.5, num_rounds=1, rollouts=2)
    folder = train_online(prompted, "disagree", toy_model_dir, config)
    inside = Project(root=folder / "rounds" / "0000")
    for row in read_preferences(inside.preferences("chosen"), PairSet.read(inside.pairs("chosen"))).rows:
        assert (row.labels, row.clip_label) == ((1, -1), -1)
    assert [record["num_pairs"] for record in rounds(folder)] == [2]


def test_the_same_judge_twice_is_refused(prompted: Project, toy_model_dir: Path):
    twice = [{"judge": "online_judges:Brightness"}, {"judge": "online_judges:Brightness", "weight": -1.0}]
    with pytest.raises(BadInput, match="'brightness' is among the judges twice: give it once"):
        train_online(prompted, "x", toy_model_dir, online_config(rewards=twice))
    guard = {"every": 1, "num_prompts": 1, "judge": {"judge": "online_judges:Bright"}}
    with pytest.raises(BadInput, match="a judge that is trained on is not held out"):
        train_online(prompted, "y", toy_model_dir, online_config(guard=guard))


def test_a_judge_that_cannot_be_made_is_refused_before_anything_is_written(prompted: Project, toy_model_dir: Path):
    """So that the name is free for the call that is right."""
    with pytest.raises(BadInput, match="it is one of reward, oracle, http"):
        train_online(prompted, "typo", toy_model_dir, online_config(rewards=[{"judge": "rewrad"}]))
    assert not prompted.run("typo").exists()


def test_a_judge_that_only_compares_is_refused(prompted: Project, toy_model_dir: Path):
    with pytest.raises(BadInput, match="gives answers without scores"):
        train_online(prompted, "x", toy_model_dir, online_config(rewards=[{"judge": "online_judges:Compares"}]))


def test_f20_a_judge_that_is_away_is_waited_for_and_nothing_is_trained_meanwhile(
    prompted: Project, toy_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Away when the first of 4 pairs is asked about ahead, so that no other is; then three times: 1, 2 and 4 s."""
    away, slept = tmp_path / "away", []
    away.write_text("\n".join("1234"))

    def sleep(seconds: float) -> None:
        assert not (prompted.run("away") / "metrics.jsonl").exists()
        slept.append(seconds)

    monkeypatch.setattr("densedpo.learn.online.judging.sleep", sleep)
    rewards = [{"judge": "online_judges:Away", "options": {"file": str(away)}}]
    folder = train_online(prompted, "away", toy_model_dir, online_config(rewards=rewards, num_rounds=1))
    assert sum(slept) == 7.0
    assert rounds(folder)[0]["num_pairs"] == 2


def test_f20_a_judge_that_stays_away_ends_the_run_resumably(prompted: Project, toy_model_dir: Path, tmp_path: Path):
    away = tmp_path / "away"
    away.write_text("\n".join("12"))  # once ahead, and once after it
    rewards = [{"judge": "online_judges:Away", "options": {"file": str(away)}}]
    config = online_config(rewards=rewards, num_rounds=1, judge_patience_min=0.0)
    with pytest.raises(Interrupted, match="the planted judge is away"):
        train_online(prompted, "gone", toy_model_dir, config)
    judges = prompted.run("gone") / "judges.json"
    before = judges.read_text()
    judges.write_text('{"instructions": ["planted 0"]}')
    with pytest.raises(BadInput, match="a judge is not what it was when the run began"):
        train_online(prompted, "gone", toy_model_dir, config)
    judges.write_text(before)
    assert rounds(train_online(prompted, "gone", toy_model_dir, config))[0]["num_pairs"] == 2


def test_a_reward_that_failed_its_probe_here_is_refused_unless_the_run_allows_it(
    prompted: Project, toy_model_dir: Path, caplog: pytest.LogCaptureFixture
):
    """A verdict on other instructions is one on another judge; who is held out may have failed."""

    def probed(annotator: str, instructions: str) -> None:
        path = prompted.root / "probes" / f"{annotator}--p" / "card.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        card = {
            "annotator": annotator, "instructions_sha256": [sha256_json(instructions)], "passed": False,
            "reasons": ["MB3: 0.9"], "truth": "ann", "pairs": "p", "made_at": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        path.write_text(json.dumps(card))

    def jury(learn: dict[str, object] | None = None) -> Jury:
        guard = {"every": 1, "judge": {"judge": "online_judges:Darkness"}}
        inputs = read_online_inputs(
            prompted, "x", model=toy_model_dir, config=online_config(learn, guard=guard), allow_stale=False
        )
        return seat_jury(inputs, lambda: None)

    probed("darkness", "planted 1")
    probed("brightness", "planted 0")
    assert [judge.annotator for judge in jury().all] == ["brightness", "darkness"]
    probed("brightness", "planted 1")
    with pytest.raises(BadInput, match=r"'brightness' failed its probe \(MB3: 0\.9\).*learn\.allow_failed_judge=true"):
        jury()
    jury({"allow_failed_judge": True})
    assert "learning from it all the same, as learn.allow_failed_judge says" in caplog.text


def test_prompts_with_the_same_words_are_prompts_of_their_own(prompted: Project, toy_model_dir: Path):
    """Two prompts of one caption and no clip: rollouts of other noises, no two of them alike, and a pair of each."""
    path = prompted.clips / "prompts.jsonl"
    prompts = [Prompt(id=f"twin-{i}", caption="a red circle", split="train") for i in range(2)]
    write_jsonl(path, prompts)
    folder = train_online(prompted, "twins", toy_model_dir, online_config(num_rounds=1, steps_per_round=1))
    inside = Project(root=folder / "rounds" / "0000")
    rollouts = PairSet.read(inside.pairs("rollouts"))
    made = [t for pair in rollouts for t in load_file(rollouts.folder / pair.latents).values()]
    assert not any(torch.equal(one, other) for one, other in combinations(made, 2))
    assert len(made) == 8
    assert sorted(pair.prompt_id for pair in PairSet.read(inside.pairs("chosen"))) == ["twin-0", "twin-1"]


def test_one_prompt_gives_a_pair_for_each_visit(prompted: Project, toy_model_dir: Path):
    path = prompted.clips / "prompts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    folder = train_online(prompted, "one", toy_model_dir, online_config(num_rounds=2, steps_per_round=1))
    assert [row["num_pairs"] for row in rounds(folder)] == [2, 2]


def test_several_rewards_are_added_up_by_their_weights(prompted: Project, toy_model_dir: Path):
    """Brightness and its opposite cancel out: every prompt is a tie."""
    both = [{"judge": f"online_judges:{name}", "weight": 2.0} for name in ("Brightness", "Darkness")]
    config = online_config(rewards=both, num_rounds=1, max_empty_rounds=2)
    folder = train_online(prompted, "both", toy_model_dir, config)
    assert rounds(folder)[0]["num_tied"] == 2
    assert json.loads((folder / "summary.json").read_text())["steps"] == 0


def test_replay_learns_from_the_pairs_of_earlier_rounds_too(prompted: Project, toy_model_dir: Path):
    """A window of 4 pairs, of which a round has 2: with one round replayed each is seen once in a step."""
    learn = {"batch_pairs": 4}
    config = online_config(learn, replay_rounds=1, num_rounds=2, steps_per_round=1, refresh_every=0)
    folder = train_online(prompted, "replay", toy_model_dir, config)
    assert [row["num_items"] for row in rows(folder)] == [4, 4]


def test_a_replayed_pair_meets_noises_that_it_has_not_met(
    prompted: Project, toy_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    met: list[tuple[str, int]] = []
    window = _RoundTask.window

    def watched(task: _RoundTask, step: int):
        found = window(task, step)
        met.extend((task._pairs[visit.index].id, visit.draw) for visits in found for visit in visits)
        return found

    monkeypatch.setattr(_RoundTask, "window", watched)
    config = online_config({"batch_pairs": 4}, replay_rounds=2, num_rounds=3, steps_per_round=2, refresh_every=0)
    train_online(prompted, "replay", toy_model_dir, config)
    ids = [pair_id for pair_id, _ in met]
    assert max(map(ids.count, ids)) > 4  # some pair was met in three rounds
    assert len(set(met)) == len(met)
