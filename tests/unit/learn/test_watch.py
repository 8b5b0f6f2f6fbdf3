"""A run says how it is doing, stops at an alarm where told to, and keeps an average of its adapters where told to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.config import load_config
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.learn import loop
from densedpo.learn.config import LearnConfig
from densedpo.learn.run import learn_offline
from densedpo.learn.watch.health import health_line

FEW = {"num_steps": 6, "batch_pairs": 2, "eval_every": 2, "eval_pairs": 3, "eval_draws": 1, "lora_rank": 2}


def train(project: Project, model: Path, name: str, **settings: object) -> Path:
    config = LearnConfig.model_validate(FEW | {"checkpoint_every": 1, "learning_rate": 1e-3} | settings)
    return learn_offline(project, name, pairs="toy", preferences="toy", model=model, config=config)


def test_an_evaluation_is_said_in_words():
    row = {
        "step": 40, "frame_accuracy": 0.71, "frame_accuracy_se": 0.03, "win_gap": 2e-3, "loser_dominant": 0.8,
        "drift": 1e-4,
    }  # fmt: skip
    assert health_line(row) == (
        "step 40, validation pairs: 71 % (+- 3) of frames ranked as labelled; winner less likely (error +2.0e-03); "
        "80 % of what is ranked right only because the loser got worse; drift 1.0e-04"
    )
    assert "not told from chance" in health_line(row | {"frame_accuracy": 0.55})
    assert "winner more likely (error -2.0e-03)" in health_line(row | {"win_gap": -2e-3})
    assert health_line(row | {"step": 0}) == ""


def test_a_run_stops_at_an_alarm_only_where_told_to(
    labelled: Project, toy_model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    """A rate a thousand times too high: the policy has run away by the first evaluation after the start."""
    wild = {"learning_rate": 1.0, "warmup_steps": 0}
    stopped = train(labelled, toy_model_dir, "stopped", stop_on_alarm=True, **wild)
    assert json.loads((stopped / "summary.json").read_text(encoding="utf-8"))["steps"] == 2
    assert "stopped after step 2: stop_on_alarm" in caplog.text
    (alarm,) = [a for a in json.loads((stopped / "run.json").read_text())["alarms"] if a["name"] == "runaway"]
    assert alarm["step"] == 2
    assert "runs away from the reference" in alarm["message"]
    whole = train(labelled, toy_model_dir, "whole", **wild)
    assert json.loads((whole / "summary.json").read_text(encoding="utf-8"))["steps"] == 6


def test_the_average_by_hand(labelled: Project, toy_model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Decays (1 + n)/(10 + n), at most 0.9: .1, 2/11, 3/12, 4/13, ...; evaluations and the end take the average."""
    seen: list[dict[str, torch.Tensor]] = []
    take_step = loop.take_step

    def recorded(task, optimizer, config, **kwargs):
        result = take_step(task, optimizer, config, **kwargs)
        seen.append([p.detach().clone() for group in optimizer.param_groups for p in group["params"]])
        return result

    monkeypatch.setattr(loop, "take_step", recorded)
    averaged = train(labelled, toy_model_dir, "averaged", ema_decay=0.9)
    state = load_file(averaged / "checkpoints" / "step-000006" / "state.safetensors")
    names = [key.removeprefix("adapter/") for key in state if key.startswith("adapter/")]
    ups = [name for name in names if ".lora_B." in name]  # these start from 0
    by_name = [dict(zip(sorted_names(averaged), step, strict=True)) for step in seen]
    for name in ups:
        expected = torch.zeros_like(state[f"adapter/{name}"])
        for n, step in enumerate(by_name):
            decay = (1 + n) / (10 + n)
            expected = decay * expected + (1 - decay) * step[name]
        torch.testing.assert_close(state[f"average/{name}"], expected, rtol=1e-4, atol=1e-7)
        assert torch.equal(state[f"adapter/{name}"], by_name[-1][name])


def sorted_names(folder: Path) -> list[str]:
    """The parameters' names in the optimizer's order, as the model has them."""
    from densedpo.adapters import load
    from densedpo.learn.reference import attach_lora

    model = json.loads((folder / "run.json").read_text(encoding="utf-8"))["model"]
    return list(attach_lora(load(model), LearnConfig.model_validate(FEW)))


def test_a_run_with_an_average_resumes_bit_for_bit(labelled: Project, toy_model_dir: Path):
    whole = train(labelled, toy_model_dir, "whole", ema_decay=0.9)
    cut = train(labelled, toy_model_dir, "cut", ema_decay=0.9)
    for name in ("stamp.json", "summary.json", "adapter.safetensors"):
        (cut / name).unlink()
    newest = cut / "checkpoints" / "step-000006" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])  # so that it goes on from step 5
    train(labelled, toy_model_dir, "cut", ema_decay=0.9)
    ours, theirs = (load_file(folder / "adapter.safetensors") for folder in (cut, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    plain = load_file(train(labelled, toy_model_dir, "plain") / "adapter.safetensors")
    assert not all(torch.equal(plain[name], theirs[name]) for name in theirs)


def test_stopping_at_an_alarm_needs_evaluations():
    with pytest.raises(ValueError, match="stop_on_alarm need evaluations"):
        LearnConfig(stop_on_alarm=True, eval_every=0)
    with pytest.raises(BadInput, match="ema_decay"):
        load_config(LearnConfig, None, ["ema_decay=1.0"])
