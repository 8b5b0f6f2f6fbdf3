"""What the shipped reward sees of what decides the oracle's labels: its differences against those of each score.

    python benchmarks/reward/parts.py --project PROJECT --pairs PAIRS

For the segments of guided pairs of the procedural world: in which share of those that the oracle decides the higher
score of the reward is right, and the correlation of the reward's difference between the two clips with that of each of
the oracle's scores. Prints a table; standard errors are those of independent segments, which those of a pair are not
quite.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densedpo.core.media import read_pair_mp4
from densedpo.core.progress import track
from densedpo.core.records import from_row
from densedpo.core.workspace import find_project
from densedpo.judge.oracle import OracleConfig
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.reward.judge import RewardConfig, RewardJudge
from densedpo.world.oracle import score_clip
from densedpo.world.scene import Scene

SCORES = ("text_alignment", "visual_quality", "temporal_consistency")
SEGMENT_SECONDS = 1.0


def differences(pairs: PairSet, judge: RewardJudge, num_pairs: int) -> np.ndarray:
    """Rows [segment, 4]: a less b in the reward, then in each of the oracle's scores."""
    rows = []
    for pair in track(list(pairs)[:num_pairs], what="pairs"):
        a, b = read_pair_mp4(pairs.folder / pair.video, pixel_scale=pair.pixel_scale)
        ranges, scene = ranges_of(pair, SEGMENT_SECONDS), from_row(Scene, pair.scene, f"pair {pair.id}")
        rewards = [judge.scores(clip, ranges, fps=pair.fps) for clip in (a, b)]
        for_a, for_b = (score_clip(clip, scene, segments=ranges, fps=pair.fps).segments for clip in (a, b))
        for index in range(len(ranges)):
            apart = [getattr(for_a[index], name) - getattr(for_b[index], name) for name in SCORES]
            rows.append([rewards[0][index] - rewards[1][index], *apart])
    return np.array(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores the pairs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--num-pairs", type=int, default=200, help="the first so many")
    parser.add_argument("--weights", default="", help="the package's if not given")
    given = parser.parse_args(arguments)
    pairs = PairSet.read(find_project(given.project).pairs(given.pairs))
    found = differences(pairs, RewardJudge(RewardConfig(weights=given.weights)), given.num_pairs)
    overall = found[:, 1:].mean(axis=1)
    decided = np.abs(overall) > OracleConfig().margin
    right = float((np.sign(found[decided, 0]) == np.sign(overall[decided])).mean())
    num = int(decided.sum())
    print(f"{num} of {len(found)} segments decided; higher score right: {right:.3f} +- {np.sqrt(0.25 / num):.3f}")
    for place, name in enumerate(SCORES, start=1):
        share = float(np.cov(found[decided, place] / 3, overall[decided])[0, 1] / overall[decided].var(ddof=1))
        seen = float(np.corrcoef(found[:, 0], found[:, place])[0, 1])
        print(f"{name:<22} decides {share:.2f}; correlation {seen:+.3f} +- {1 / np.sqrt(len(found)):.3f}")


if __name__ == "__main__":
    main()
