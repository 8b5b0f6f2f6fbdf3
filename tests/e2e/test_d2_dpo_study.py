"""The study of D2-DPO on next to nothing, and the truth that it measures by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from study_modules import study_modules


def test_the_truth_of_a_token_clip_by_hand():
    """A clip on its path is right everywhere; of another colour nowhere; standing still it fits one frame in six."""
    with study_modules("d2_dpo") as modules:
        videos = modules["videos"]
        caption = videos.Caption(colour=2, step=(0, 1))
        clip = torch.where(videos.paths(caption.step)[9], 2, 0)[None]
        still = clip[:, :1].expand_as(clip)
        found = videos.overlap(torch.cat([clip, torch.where(clip > 0, 1, 0), still]), [caption] * 3)
        assert found[0].tolist() == [1.0] * 6
        assert found[1].sum() == 0
        # the path leaves it by a column in each frame: 9 of 9 places are right at best, then 6 of 12, 3 of 15, none
        assert found[2].max() == 1
        assert found[2].mean() < 0.5
        # a step leaves three places and takes three: 6 of 12
        assert videos.motion(torch.cat([clip, still])).tolist() == [0.5, 0.0]
        rng = torch.Generator().manual_seed(0)
        real = videos.real_clips(videos.CAPTIONS, fault_share=0.0, rng=rng)
        assert videos.overlap(real, videos.CAPTIONS).min() == 1
        faulty = videos.real_clips(videos.CAPTIONS, fault_share=1.0, rng=rng)
        assert videos.overlap(faulty, videos.CAPTIONS).mean(1).max() < 1


@pytest.mark.slow
def test_every_arm_runs_to_the_table(tmp_path: Path):
    with study_modules("d2_dpo") as modules:
        modules["run"].main(["--out", str(tmp_path), "--quick"])
    report = json.loads((tmp_path / "results" / "results.json").read_text())
    assert set(report["against_base"]) == {"clip", "frames", "shuffled", "winners"}
    assert set(report["against_base"]["clip"]["overlap"]["by_seed"]) == {"0", "1"}
    assert "| clip less shuffled |" in (tmp_path / "results" / "table.md").read_text()
