"""Labels in space: a regenerated copy is worse inside its mask only, and learning knows where that is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from densedpo.adapters import VideoModel
from densedpo.cli.main import run as densedpo
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.core.records import Corruption, Pair, Preference, read_jsonl, write_jsonl
from densedpo.core.workspace import Project
from densedpo.learn.cache import CachedReference
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import frame_errors, pair_errors
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import LabelledPair, read_pairs
from densedpo.learn.feed.order import Visit
from densedpo.learn.feed.splits import split_pairs
from densedpo.learn.objectives import dense_dpo
from densedpo.learn.reference import AdapterOff, live_reference
from densedpo.learn.task.objective import label_weight
from densedpo.learn.task.safeguard import loser_scale
from densedpo.learn.watch.alarms import find_alarms
from densedpo.learn.watch.health import health_line
from learn_bench import FRESH, Bench

VISITS = tuple(Visit(index=index, draw=0) for index in range(3))
GRID = (3, 4, 4)


def a_mask(index: int) -> torch.Tensor:
    """A block of 2 x 2 cells in the last two latent frames, elsewhere in each pair."""
    mask = torch.zeros(GRID, dtype=torch.bool)
    mask[1:, index % 3 : index % 3 + 2, 1:3] = True
    return mask


def make_regional(project: Project, first_plain: int) -> None:
    """Makes the toy pairs up to a place regenerated ones whose a is real, and says so in their labels."""
    folder, path = project.pairs("toy"), project.preferences("toy")
    pairs, preferences = read_jsonl(folder / "pairs.jsonl", Pair), read_jsonl(path, Preference)
    for index in range(first_plain):
        made = Corruption(kind="regenerated", real="a")
        pairs[index] = replace(pairs[index], kind="corrupted", corruption=made, noise_key_a="", eta=0.75)
        preferences[index] = replace(preferences[index], labels=(1, 1), clip_label=1, confidence=None)
        latents = folder / pairs[index].latents
        save_file({**load_file(latents), "mask": a_mask(index)}, latents)
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(path, preferences)


def read(project: Project, model: VideoModel) -> tuple[LabelledPair, ...]:
    return read_pairs(project.pairs("toy"), project.preferences("toy"), model.geometry, model.fingerprint)


@pytest.fixture
def pairs(labelled: Project, toy_model: VideoModel) -> tuple[LabelledPair, ...]:
    """The first two have a mask, the rest have labels of whole frames."""
    make_regional(labelled, 2)
    return read(labelled, toy_model)


def moved(bench: Bench) -> Bench:
    """With an adapter that is no longer fresh, so that margins and gradients are not 0."""
    for name, parameter in bench.parameters.items():
        if "lora_B" in name:
            with torch.no_grad():
                parameter.copy_(0.02 * seeds.noise(tuple(parameter.shape), "moved", name))
    return bench


def test_a_label_holds_inside_the_mask(pairs, toy_model: VideoModel):
    batch = Source(toy_model).pairs(pairs, VISITS, FRESH)
    assert batch.by_cell
    for index in (0, 1):
        assert torch.equal(batch.field[index], a_mask(index).to(batch.field.dtype))
        assert torch.equal(batch.region[index], batch.field[index])
        assert (batch.segment[index] == 1).all()
    plain = pairs[2].labels.field
    assert torch.equal(batch.field[2], torch.from_numpy(plain)[:, None, None].expand(GRID))
    assert not batch.region.any(dim=(1, 2, 3))[2]
    assert pairs[0].labels.non_tie_share == pytest.approx(2 / 3)


def test_errors_in_cells_average_to_those_of_frames(pairs, toy_model: VideoModel):
    packed = Source(toy_model).pairs(pairs, VISITS, FRESH).packed()
    with torch.no_grad():
        by_cell, by_frame = frame_errors(toy_model, packed), frame_errors(toy_model, replace(packed, by_cell=False))
    assert by_cell.shape == (6, *GRID)
    torch.testing.assert_close(by_cell.mean((2, 3), keepdim=True), by_frame)


def test_a_label_of_a_whole_frame_costs_the_same_in_cells(labelled: Project, toy_model_dir: Path):
    """The same pairs, read before and after others of their set have masks."""
    bench = moved(Bench(toy_model_dir, []))
    found = []
    for regional in (False, True):
        if regional:
            make_regional(labelled, 2)
        pairs = read(labelled, bench.model)[2:5]
        batch = Source(bench.model).pairs(pairs, VISITS, FRESH)
        assert batch.by_cell == regional
        with torch.no_grad():
            errors = pair_errors(bench.model, batch, live_reference(bench.model, batch))
        found.append(dense_dpo(errors, batch.field, beta=500.0))
    torch.testing.assert_close(found[0].loss, found[1].loss, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[0].weight, found[1].weight)


@pytest.mark.parametrize("objective", ["dense_dpo", "dpo", "dpo_levels", "dense_dpo_ties", "dense_dpo_summed"])
def test_the_weight_that_divides_a_step_is_known_before_it(pairs, toy_model_dir: Path, objective: str):
    bench = moved(Bench(toy_model_dir, pairs, objective=objective))
    with torch.no_grad():
        outcome = bench.task.outcome(VISITS)
    known = [label_weight(bench.config, pair) for pair in pairs[:3]]
    torch.testing.assert_close(outcome.weight, torch.tensor(known))


def test_levels_with_anchor_and_safeguard_have_the_same_gradient_one_clip_at_a_time(pairs, toy_model_dir: Path):
    """Packed and apart are the same step; the safeguard changes the gradient and not the loss."""
    options = {"objective": "dpo_levels", "level_weights": (1.0, 0.5, 1.0), "winner_anchor": 0.1}
    losses, gradients = [], []
    for more in ({"loser_safeguard": 0.5}, {"loser_safeguard": 0.5, "memory": "apart"}, {}):
        bench = moved(Bench(toy_model_dir, pairs, **options, **more))
        losses.append(bench.task.backward(VISITS, 1.0).loss)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in bench.parameters.values()]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)
    assert (gradients[0] - gradients[2]).abs().max() > 1e-3


def test_under_the_safeguard_a_region_has_a_scale_of_its_own_by_hand():
    """One frame of two cells, both clips' residuals 1 and (2, 4): mu = 0, a wins the first cell, nobody the second.

    lambda of the first cell = 1 * 1 / (1 * 2) = 1/2; the second stays 1. Labelled both: (1 + 1)/(2 + 4) = 1/3 for both.
    """
    a = torch.ones(1, 1, 1, 1, 2)
    b = torch.tensor([2.0, 4.0]).view(1, 1, 1, 1, 2)
    _, region = loser_scale(a, b, torch.tensor([1, 0]).view(1, 1, 1, 2), mu=0.0, by_clip=False)
    assert region.flatten().tolist() == [0.5, 1.0]
    _, whole = loser_scale(a, b, torch.tensor([1, 1]).view(1, 1, 1, 2), mu=0.0, by_clip=False)
    assert whole.flatten().tolist() == pytest.approx([1 / 3, 1 / 3])


def test_cached_reference_errors_are_by_cell_too(pairs, toy_model: VideoModel, tmp_path: Path):
    cache, source = CachedReference(pairs[:3], FRESH, tmp_path), Source(toy_model)
    cache.fill(toy_model, source, 1, lambda: None, reference=Frozen(toy_model))
    batch = source.pairs(pairs, VISITS, FRESH)
    with torch.no_grad():
        live = frame_errors(toy_model, batch.packed())
    torch.testing.assert_close(cache.of(VISITS), live, rtol=1e-4, atol=1e-5)


class Frozen(AdapterOff):
    """The toy model itself, which has no adapter to switch off."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__(model)
        self._toy = model

    def residuals(self, batch):
        from densedpo.learn.errors import residuals

        with torch.no_grad():
            return residuals(self._toy, batch)


def test_a_pair_without_its_mask_is_refused(labelled: Project, toy_model: VideoModel, pairs):
    latents = pairs[1].latents
    save_file({name: tensor for name, tensor in load_file(latents).items() if name != "mask"}, latents)
    with pytest.raises(BadInput, match="holds no mask of what was made anew"):
        read(labelled, toy_model)
    save_file({**load_file(latents), "mask": torch.ones(3, 2, 2, dtype=torch.bool)}, latents)
    with pytest.raises(BadInput, match="not bool"):
        read(labelled, toy_model)


def test_a_real_clip_has_no_noise_of_its_own(pairs):
    with pytest.raises(BadInput, match="was made from no noise"):
        split_pairs(pairs, LearnConfig(noise="own"))
    assert len(split_pairs(pairs, LearnConfig()).train) > 0


def test_settings_of_levels_are_checked():
    with pytest.raises(ValueError, match="level_weights has no effect with dense_dpo"):
        LearnConfig(level_weights=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="no level is left"):
        LearnConfig(objective="dpo_levels", level_weights=(0.0, 0.0, 0.0))


def test_pairs_that_are_soon_told_apart_name_the_cause():
    row = {"step": 40, "frame_accuracy": 0.99, "frame_accuracy_se": 0.005, "real_winner_share": 1.0}
    (alarm,) = find_alarms([{"step": 40, "accuracy": 0.99}], [row])
    assert alarm.name == "too_easy"
    assert "0.990, early: these pairs are a real clip and its corrupted copy" in alarm.message
    assert "winner_anchor and loser_safeguard" in alarm.message
    assert "real clips are told from their copies" in health_line(row)
    others = {key: value for key, value in row.items() if key != "real_winner_share"}
    (usual,) = find_alarms([{"step": 40, "accuracy": 0.99}], [others])
    assert "corrupted" not in usual.message
    assert "real clips" not in health_line(others)


def test_real_clips_are_told_apart_where_every_clip_is_and_some_frames_are_not():
    """As with shuffled copies, of which some frames stay in place: the accuracy of `dpo` is by clips."""
    row = {"step": 15, "frame_accuracy": 0.93, "accuracy": 1.0, "real_winner_share": 1.0}
    (alarm,) = find_alarms([{"step": 15, "accuracy": 1.0}], [row])
    assert alarm.name == "too_easy"
    assert "validation accuracy is 1.000, early" in alarm.message
    assert "real clips are told from their copies" in health_line({**row, "frame_accuracy_se": 0.02})
    assert find_alarms([{"step": 15, "accuracy": 1.0}], [{**row, "real_winner_share": 0.0}]) == []


@pytest.mark.slow
def test_a_run_on_regions_trains_with_cached_errors_and_says_what_its_winners_are(
    labelled: Project, toy_model_dir: Path
):
    """With the levels of LocalDPO; 2 of the 6 validation pairs are real clips and their copies."""
    make_regional(labelled, 14)
    with pytest.raises(SystemExit) as leaving:
        densedpo([
            "learn", "offline", "run", "--pairs", "toy", "--preferences", "toy", "--model", str(toy_model_dir),
            "--project", str(labelled.root), "--set", "objective=dpo_levels", "--set", "level_weights=[1.0,0.0,1.0]",
            "--set", "winner_anchor=0.1", "--set", "loser_safeguard=0.5", "--set", "num_steps=2", "--set", "draws=2",
            "--set", "batch_pairs=4", "--set", "eval_every=2", "--set", "eval_draws=1", "--set", "lora_rank=4",
        ])  # fmt: skip
    assert leaving.value.code == 0
    rows = [json.loads(line) for line in (labelled.run("run") / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["split"] == "validation"][-1]
    assert last["step"] == 2
    assert last["real_winner_share"] == pytest.approx(2 / 6)
    assert all(np.isfinite(row["loss"]) for row in rows)
