"""How much of what a run follows is preference: do disjoint groups of pairs pull the adapter the same way?

    python benchmarks/headline/label_signal.py PROJECT --pairs guided --preferences dense --t 0.2 0.4 0.6 0.8 1.0

Before any training. The pairs are cut into groups, and for each range of noise levels the gradient of the objective at
the fresh adapter is summed over each group. Gradients of groups that share no pair are alike only by what the labels
say in general; the rest is each pair's own. The mean cosine c between groups of n pairs gives the number of pairs whose
summed gradient is half signal, half noise: n (1 - c) / c. Settings of the run are given as for `learn offline`; the
margin of the labels, the number of draws and the ranges of t can so be compared in minutes, where a training takes
hours. Ranges are (0, t1), (t1, t2), and so on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from densedpo.core.config import load_config
from densedpo.core.progress import track
from densedpo.core.seeds import generator
from densedpo.core.workspace import find_project
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.models import load_model
from densedpo.learn.run import read_inputs
from densedpo.learn.task.preference import PreferenceTask

if TYPE_CHECKING:
    from torch import Tensor


def gradient(task: PreferenceTask, parameters: Sequence[torch.nn.Parameter], visits: Sequence[Visit]) -> Tensor:
    """The gradient of the summed loss of the visits, as one vector."""
    for parameter in parameters:
        parameter.grad = None
    for start in range(0, len(visits), 8):
        task.backward(visits[start : start + 8], 1.0)
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def alikeness(gradients: Sequence[Tensor]) -> tuple[float, float]:
    """Mean cosine between the gradients, and its standard error as if the pairs of groups were independent."""
    cosines = [float(torch.nn.functional.cosine_similarity(a, b, dim=0)) for a, b in combinations(gradients, 2)]
    return float(np.mean(cosines)), float(np.std(cosines, ddof=1) / np.sqrt(len(cosines)))


def main() -> None:
    """Prints one line for each range of t, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--preferences", required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--t", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0], help="upper ends of the ranges")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1, help="draws of (t, noise) for each pair")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the run")
    given = parser.parse_args()
    settings = load_config(LearnConfig, None, given.set)
    inputs = read_inputs(
        find_project(given.project),
        "signal",
        pairs=given.pairs,
        preferences=given.preferences,
        model=given.model,
        config=settings.model_copy(update={"eval_every": 0}),
        allow_stale=False,
    )
    pairs = inputs.splits.train
    model, named = load_model(inputs)
    source, parameters = Source(model), list(named.values())
    groups = np.array_split(generator(0, "signal").permutation(len(pairs)), given.groups)
    for low, high in pairwise([0.0, *given.t]):
        config = settings.model_copy(update={"t_min": low, "t_max": high})
        draws = Draws(noise_seed=0, count="fresh", density=TimeDensity.of(config), noise=config.noise)
        task = PreferenceTask(model, source, pairs, draws, config, None)
        gradients = [
            gradient(task, parameters, [Visit(index=int(i), draw=d) for d in range(given.draws) for i in group])
            for group in track(groups, what=f"gradients, t in ({low:g}, {high:g})")
        ]
        cosine, error = alikeness(gradients)
        size = len(pairs) / given.groups
        row = {"t": [low, high], "draws": given.draws, "pairs_per_group": size, "cosine": cosine, "error": error}
        print(json.dumps(row | {"pairs_of_equal_noise": size * (1 - cosine) / cosine if cosine > 0 else None}))


if __name__ == "__main__":
    main()
