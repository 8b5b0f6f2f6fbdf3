"""The oracle as a judge, and the errors that can be planted in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.core.records import Pair
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.pairset import ranges_of
from densedpo.judge.protocol import PairClips, better
from densedpo.world.render import render
from densedpo.world.scene import Scene

NewPair = Callable[..., Pair]


def answers(config: OracleConfig, pair: Pair, a: np.ndarray, b: np.ndarray) -> str:
    """The answers of the four segments, one letter each."""
    clips = PairClips(pair=pair, a=a, b=b)
    return "".join(answer.answer[0] for answer in OracleJudge(config).judge(clips, ranges_of(pair, 1.0)))


def test_the_clip_without_the_fault_wins_where_the_fault_is(
    new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray
) -> None:
    assert answers(OracleConfig(), new_pair(), clean, faulty)[2:] == "aa"
    assert answers(OracleConfig(), new_pair(), faulty, clean)[2:] == "bb"
    assert answers(OracleConfig(), new_pair(), clean, faulty)[0] == "t"


def test_identical_clips_are_ties(new_pair: NewPair, clean: np.ndarray) -> None:
    assert answers(OracleConfig(), new_pair(), clean, clean) == "tttt"
    assert answers(OracleConfig(margin=0.0, error_rate=1.0), new_pair(), clean, clean) == "tttt"


def test_a_margin_that_nothing_exceeds_makes_everything_a_tie(
    new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray
) -> None:
    assert answers(OracleConfig(margin=1.1), new_pair(), clean, faulty) == "tttt"


def test_an_error_rate_of_one_turns_every_answer_but_ties(
    new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray
) -> None:
    right = answers(OracleConfig(), new_pair(), clean, faulty)
    wrong = answers(OracleConfig(error_rate=1.0), new_pair(), clean, faulty)
    assert wrong == right.translate(str.maketrans("ab", "ba"))


def test_the_planted_error_rate_is_met_and_repeats(new_pair: NewPair, clean: np.ndarray) -> None:
    """Over 50 pairs with 4 answers each, a rate of 0.3 has a standard deviation of 0.033; the seed is fixed."""
    grain = np.random.Generator(np.random.Philox(key=6)).integers(-70, 70, size=clean.shape)
    grainy = np.clip(clean + grain, 0, 255).astype(np.uint8)
    pairs = [new_pair(id=f"p{i}") for i in range(50)]
    given = "".join(answers(OracleConfig(error_rate=0.3), pair, clean, grainy) for pair in pairs)
    assert set(given) == {"a", "b"}
    assert abs(given.count("b") / len(given) - 0.3) < 0.1
    assert given[:12] == "".join(answers(OracleConfig(error_rate=0.3), pair, clean, grainy) for pair in pairs[:3])
    other = "".join(answers(OracleConfig(error_rate=0.3, seed=1), pair, clean, grainy) for pair in pairs[:8])
    assert other != given[:32]


def test_a_motion_bias_prefers_the_clip_that_moves_less(new_pair: NewPair, scene: Scene) -> None:
    """Both clips are flawless; asked for either speed, the slow one wins only where the bias is planted."""
    fast = replace(scene, speed="fast")
    slow_clip, fast_clip = render(scene), render(fast)
    pair = new_pair(scene={**new_pair().scene, "speed": "fast"})  # type: ignore[dict-item]
    assert "a" not in answers(OracleConfig(), pair, slow_clip, fast_clip)
    assert answers(OracleConfig(motion_bias=5.0), pair, slow_clip, fast_clip).count("a") >= 3


def test_scores_are_those_before_an_answer_is_turned(new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray) -> None:
    pair = new_pair()
    clips = PairClips(pair=pair, a=clean, b=faulty)
    honest = OracleJudge(OracleConfig()).judge(clips, ranges_of(pair, 1.0))
    turned = OracleJudge(OracleConfig(error_rate=1.0)).judge(clips, ranges_of(pair, 1.0))
    assert [(x.score_a, x.score_b) for x in honest] == [(x.score_a, x.score_b) for x in turned]


def test_other_options_are_another_annotator() -> None:
    assert OracleJudge(OracleConfig()).annotator == "oracle"
    names = {
        OracleJudge(config).annotator for config in (OracleConfig(error_rate=0.1), OracleConfig(segment_seconds=2.0))
    }
    assert len(names) == 2
    assert all(name.startswith("oracle-") for name in names)
    assert OracleJudge(OracleConfig(error_rate=0.1)).annotator in names


def test_a_pair_of_real_video_is_refused(new_pair: NewPair) -> None:
    with pytest.raises(BadInput, match=r"pair p0 has no known scene.*judge reference"):
        OracleJudge(OracleConfig()).check(new_pair(scene=None))


def test_a_pair_of_another_size_is_refused(new_pair: NewPair) -> None:
    with pytest.raises(BadInput, match="pair p0 is 96x64 and the oracle reads 64x64"):
        OracleJudge(OracleConfig()).check(new_pair(width=96))


def test_a_scene_with_a_missing_word_is_refused_by_name(new_pair: NewPair) -> None:
    with pytest.raises(BadInput, match="pair p0: scene: key 'colour'"):
        OracleJudge(OracleConfig()).check(new_pair(scene={"shape": "circle"}))


@pytest.mark.parametrize(
    ("a", "b", "margin", "expected"),
    [
        (0.5, 0.4, 0.05, "a"),
        (0.4, 0.5, 0.05, "b"),
        (0.5, 0.47, 0.05, "tie"),
        (0.5, 0.5, 0.0, "tie"),
        (0.6, 0.5, 0.0, "a"),
    ],
)
def test_better(a: float, b: float, margin: float, expected: str) -> None:
    assert better(a, b, margin) == expected
