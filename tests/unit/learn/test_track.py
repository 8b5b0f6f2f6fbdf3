"""The rows of metrics.jsonl: weighted means, buckets of t, and a log that goes on where a run was cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from densedpo.learn.objectives import PairMetrics
from densedpo.learn.task.protocol import Outcome
from densedpo.learn.watch.track import MetricsLog, read_metrics, summarise


def outcome(t: list[float], weight: list[float], accuracy: list[float], loser: list[float]) -> Outcome:
    zeros, weights = torch.zeros(len(t)), torch.tensor(weight, dtype=torch.float32)
    metrics = PairMetrics(
        accuracy=torch.tensor(accuracy, dtype=torch.float32),
        margin=zeros + 2,
        win_gap=zeros - 0.5,
        lose_gap=zeros + 0.25,
        loser_dominant=torch.tensor(loser, dtype=torch.float32),
        weight=weights,
    )
    return Outcome(loss=weights * 0.5, weight=weights, t=torch.tensor(t), metrics=metrics)


def test_means_are_weighted_and_split_by_t():
    """Weights 1, 3, 4 with accuracies 1, 0, .5: (1 + 0 + 2) / 8. Loser-dominant: .5 of weight 4 over a hit weight 3."""
    row = summarise([outcome([0.1, 0.3], [1, 3], [1, 0], [0, 0]), outcome([0.3], [4], [0.5], [0.5])])
    assert row["accuracy"] == pytest.approx(3 / 8)
    assert row["loser_dominant"] == pytest.approx(2 / 3)
    assert row["loss"] == pytest.approx(0.5)
    assert (row["weight"], row["num_items"]) == (8, 3)
    low, middle = row["by_t"]
    assert (low["t_min"], low["t_max"], low["accuracy"], low["weight"]) == (0.0, 0.25, 1.0, 1.0)
    assert middle["accuracy"] == pytest.approx(2 / 7)
    assert middle["win_gap"] == pytest.approx(-0.5)


def test_ties_that_carry_loss_are_not_ranked():
    """Of a pair of weight 3, 1 has a winner; of one of weight 2, none has: the accuracy is that of the 1."""
    ties = outcome([0.1, 0.1], [3, 2], [1, 0], [0, 0])
    metrics = replace(ties.metrics, weight=torch.tensor([1.0, 0.0]))
    row = summarise([replace(ties, metrics=metrics)])
    assert (row["accuracy"], row["weight"], row["loss"]) == (1.0, 5.0, 0.5)
    none_ranked = summarise([replace(ties, metrics=replace(metrics, weight=torch.zeros(2)))])
    assert none_ranked["accuracy"] is None
    assert none_ranked["loss"] == 0.5


def test_t_of_one_falls_into_the_last_bucket():
    (bucket,) = summarise([outcome([1.0], [1], [1], [0])])["by_t"]
    assert (bucket["t_min"], bucket["num_items"]) == (0.75, 1)


def test_items_without_a_label_count_for_nothing():
    row = summarise([outcome([0.5, 0.6], [0, 2], [0, 1], [0, 0])])
    assert (row["accuracy"], row["num_items"]) == (1.0, 1)


def test_the_log_goes_on_where_the_run_was_cut(tmp_path: Path):
    log = MetricsLog(tmp_path, after_step=0, evaluated_step=None)
    for step in (1, 2, 3):
        log.write({"step": step, "split": "train", "loss": 0.5, "by_t": []})
    log.write({"step": 2, "split": "validation", "loss": 0.5, "by_t": []})  # the checkpoint does not know of it
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 4, "spl', encoding="utf-8")
    log = MetricsLog(tmp_path, after_step=2, evaluated_step=None)
    log.write({"step": 3, "split": "train", "loss": 0.25, "by_t": []})
    log.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path, "train")] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    assert read_metrics(tmp_path, "validation") == []
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert list((tmp_path / "tensorboard").iterdir())
