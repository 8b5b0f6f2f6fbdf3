"""Reports of `measure run` written from made-up scores, without a clip: what is done with scores, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from densedpo.core.records import to_row, write_jsonl
from densedpo.core.workspace import Project, write_stamp
from densedpo.measure.manifest import Manifest
from densedpo.measure.records import ClipScore, RunReport, Settings, Subject, coverage_of
from densedpo.measure.run import estimates_of
from densedpo.measure.score import METRICS, SCORING_VERSION

MANIFEST = Manifest(
    densedpo="1.0", code="c0de", decoder="PyAV 1", dtype="float32", device="cpu", gpu=None, packages={"numpy": "2"}
)


def write_scores(
    project: Project,
    name: str,
    values: Mapping[str, Sequence[float | None]],
    *,
    run: str | None = None,
    manifest: Manifest = MANIFEST,
    faults: Mapping[int, str] | None = None,
    **settings: object,
) -> RunReport:
    """Writes reports/<name> with one clip for each prompt; `values` are by metric, `faults` by prompt."""
    num_prompts = len(next(iter(values.values())))
    faults = faults or {}
    scores = [
        ClipScore(
            prompt_id=f"w{i:04d}",
            number=0,
            caption=f"caption {i}",
            video=None,
            values={m.key: values[m.key][i] if m.key in values and i not in faults else None for m in METRICS},
            fault=faults.get(i),
        )
        for i in range(num_prompts)
    ]
    made = Settings(
        split="held_out", num_prompts=num_prompts, prompts="0" * 64, seeds_per_prompt=1, seed=0, num_steps=16,
        guidance_scale=3.0, num_frames=33, fps=8.0, height=64, width=64, pixel_scale=2, scoring=SCORING_VERSION,
    )  # fmt: skip
    report = RunReport(
        kind="run",
        name=name,
        command=f"densedpo measure run {name}",
        subject=Subject(source="model", model="5f" * 32, run=run, adapter="ad" * 32 if run else None),
        settings=replace(made, **settings),  # type: ignore[arg-type]
        manifest=manifest,
        coverage=coverage_of(scores, num_prompts_asked=num_prompts),
        estimates=estimates_of(scores, seed=0, num_draws=100),
        made={},
    )
    folder = project.report(name)
    folder.mkdir(parents=True)
    write_jsonl(folder / "scores.jsonl", scores)
    (folder / "report.json").write_text(json.dumps(to_row(report), indent=2) + "\n")
    write_stamp(folder, [], project)
    return report
