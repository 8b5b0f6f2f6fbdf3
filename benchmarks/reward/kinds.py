"""How often the shipped reward puts faults in order, by kind and strength, on clips that it was not trained on.

    python benchmarks/reward/kinds.py --clips 60

Scenes of held-out combinations and textured clips drawn from other seeds, 8 frames each, half of each source. For every
kind of fault: the share of clips that score above their own copy with a fault (0.25, 0.5 and 1.0), with a tie within
the calibrated margin counted as half, the same without a margin, and the share of copies at 0.5 that score above those
at 1.0. Intervals are 95 %, Wilson (score) over clips. Prints a table; `--out FILE` also writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from densedpo.core.provenance import provenance
from densedpo.core.seeds import generator
from densedpo.judge.reward.clean import clean_clip
from densedpo.judge.reward.degrade import KINDS, degrade
from densedpo.judge.reward.judge import RewardConfig, RewardJudge

STRENGTHS = (0.25, 0.5, 1.0)
NUM_FRAMES = 8


def scores_of(judge: RewardJudge, kind: str, num_clips: int) -> np.ndarray:
    """Scores [clip, 4]: clean, and with a fault of each strength."""
    rows = []
    for index in range(num_clips):
        rng = generator("reward benchmark", kind, index)
        clip = clean_clip("world" if index % 2 else "textured", rng, NUM_FRAMES, split="held_out")
        copies = [degrade(clip, kind, s, generator("reward benchmark fault", kind, index)) for s in STRENGTHS]
        rows.append([judge.scores(each, [(0, NUM_FRAMES)], fps=8.0)[0] for each in (clip, *copies)])
    return np.array(rows)


def points(above: np.ndarray, below: np.ndarray, margin: float) -> float:
    """How many are above, those within the margin as half."""
    apart = above - below
    tie = (np.abs(apart) < margin) | (apart == 0)
    return float((~tie & (apart > 0)).sum() + tie.sum() / 2)


def with_interval(count: float, total: int) -> dict[str, float]:
    """A share with its interval (Wilson)."""
    low, high = proportion_confint(count, total, method="wilson")
    return {"value": count / total, "low": float(low), "high": float(high), "n": total}


def text(cell: dict[str, float]) -> str:
    """A share as the table prints it."""
    return f"{cell['value']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores the clips of every kind and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--weights", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    judge = RewardJudge(RewardConfig(weights=given.weights))
    margin = judge.margin
    table = {}
    print(f"margin {margin:.3f}; {given.clips} clips of each kind")
    head = [f"clean > {s:g}" for s in STRENGTHS] + [f"no margin: clean > {s:g}" for s in STRENGTHS] + ["0.5 > 1.0"]
    print("kind".ljust(10) + "".join(name.ljust(24) for name in head))
    for kind in KINDS:
        found = scores_of(judge, kind, given.clips)
        counts = [points(found[:, 0], found[:, i + 1], each) for each in (margin, 0.0) for i in range(len(STRENGTHS))]
        counts.append(points(found[:, 2], found[:, 3], 0.0))
        cells = [with_interval(count, given.clips) for count in counts]
        table[kind] = dict(zip(head, cells, strict=True))
        print(kind.ljust(10) + "".join(text(cell).ljust(24) for cell in cells), flush=True)
    if given.out is not None:
        row = {"margin": margin, "instructions": judge.instructions, "table": table, "made": provenance()}
        given.out.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
