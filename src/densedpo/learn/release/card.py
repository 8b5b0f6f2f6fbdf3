"""The model card of a trained adapter: what it was made from, how, and what was measured of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from densedpo.adapters.trained import started_from, trained_file, trained_hash
from densedpo.core.workspace import content_hash
from densedpo.judge.preferences import read_header
from densedpo.learn.course import RUN_FILE
from densedpo.learn.feed.trust import num_header_rows
from densedpo.learn.watch.track import METRICS_FILE, read_metrics

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.core.workspace import Project

    Rows = dict[str, JsonValue]

_MEANT = (
    "frame_accuracy: share of labelled latent frames that the model ranks as labelled. margin: how surely, u of the "
    "loss. win_gap, lose_gap: error on the winner and on the loser, less the base model's; below 0 is more likely. "
    "loser_dominant: of what is ranked right, the share whose winner is no better than under the base model. drift: "
    "mean square by which predictions have moved."
)
_SHOWN = ("loss", "frame_accuracy", "margin", "win_gap", "lose_gap", "loser_dominant", "drift")


def model_card(project: Project, run: Path, *, usage: str) -> str:
    """A README.md: base model, data, config, validation numbers, warnings, and the scores of reports on this adapter.

    Args:
        run: the folder of a finished run.
        usage: how the files beside the card are loaded, Markdown.
    """
    row = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    config = row["identity"]["config"]
    base, objective = _base(row["model"]), config["objective"]
    is_full = config.get("train") == "full"
    if is_full:
        chosen = config.get("trainable")
        which = f"The weights {', '.join(f'`{pattern}`' for pattern in chosen)}" if chosen else "All weights"
        what = f"{which} of the denoiser of `{base}`"
    else:
        what = f"A LoRA of rank {config['lora_rank']} for `{base}`"
    if (start := started_from(trained_file(run))) is not None:
        what += f" as run `{start.parent.name}` left it"
    tag = "full" if is_full else "lora"
    parts = [
        f"---\nbase_model: {base}\nlibrary_name: diffusers\ntags: [text-to-video, {tag}, preference]\n---",
        f"# {row['name']}",
        f"{what}, trained with densedpo by `{objective}`.",
        f"## Use\n{usage}",
        _data(row, project),
        _validation(run),
        _reports(project, run),
        f"## Settings\n```toml\n{(run / 'config.toml').read_text(encoding='utf-8').strip()}\n```",
        f"## Made with\n{_made(row)}",
        "## Licence\nThe base model's licence and the terms of the training videos hold for these weights too.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _base(model: str) -> str:
    """`owner/name` as it is, a folder's name without the folders of the machine that it lay in."""
    return Path(model).name if Path(model).exists() or model.count("/") != 1 else model


def _data(row: Rows, project: Project) -> str:
    identity, validation = row["identity"], row["validation_pairs"]
    assert isinstance(identity, dict)
    assert isinstance(validation, list)
    inputs = identity["inputs"]
    assert isinstance(inputs, dict)
    lines = [f"- `{name}` (sha256 {str(digest)[:12]})" for name, digest in inputs.items()]
    return "\n".join(
        [
            "## Data",
            f"{_trained_on(row)} and {len(validation)} validation pairs, from",
            *lines,
            *_labels(inputs, project),
            f"- base model (sha256 {str(identity['model'])[:12]})",
        ]
    )


def _labels(inputs: Rows, project: Project) -> list[str]:
    """How many judged the pairs and how, from a header of preferences that are still those of the run; no names."""
    said = []
    for name, digest in inputs.items():
        path = project.root / name
        if not name.startswith("preferences/") or not path.is_file() or content_hash(path, project) != digest:
            continue
        if num_header_rows(path):
            header = read_header(path)
            failed = sum(not verdict.passed for verdict in header.probes)
            probed = f"; {len(header.probes)} were probed, of which {failed} failed" if header.probes else ""
            tied = "" if header.tie_share is None else f", {100 * header.tie_share:.0f} % of the segments tied"
            by = f"{header.num_judgements} judgements by {len(header.annotators)} judges or people"
            said.append(f"- labels: {by}{tied}{probed}")
    return said


def _trained_on(row: Rows) -> str:
    """What the steps saw: real clips, pairs that the run made itself, or pairs that were there."""
    clips, prompts, pairs = row.get("train_clips"), row.get("prompts"), row["train_pairs"]
    assert isinstance(pairs, list)
    if isinstance(clips, list) and clips:
        return f"{len(clips)} real clips to train on"
    if isinstance(prompts, list):
        return f"{len(pairs)} training pairs, made by the run itself for {len(prompts)} prompts,"
    return f"{len(pairs)} training"


def _validation(run: Path) -> str:
    """The first and the last evaluation of the run, side by side."""
    rows = read_metrics(run, "validation") if (run / METRICS_FILE).exists() else []
    if not rows:
        return "## Validation pairs\nNone were measured in this run."
    first, last = rows[0], rows[-1]
    lines = [f"| {name} | {_text(first.get(name))} | {_text(last.get(name))} |" for name in _SHOWN]
    head = f"| on validation pairs | step {first['step']} | step {last['step']} |\n|---|---|---|"
    alarms = json.loads((run / RUN_FILE).read_text(encoding="utf-8")).get("alarms", [])
    warnings = [f"- {alarm['message']}" for alarm in alarms]
    said = "\n\nWarnings of the run:\n" + "\n".join(warnings) if warnings else "\n\nThe run raised no warning."
    return "## Validation pairs\n" + "\n".join([head, *lines]) + f"\n\n{_MEANT}" + said


def _reports(project: Project, run: Path) -> str:
    """Every estimate of the reports that measured these very weights."""
    digest = trained_hash(trained_file(run))
    tables = []
    for path in sorted(project.root.glob("reports/*/report.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("kind") != "run" or report["subject"].get("adapter") != digest:
            continue
        settings = report["settings"]
        lines = [
            f"| {name} | {_text(found['value'])} | {_text(found['low'])} to {_text(found['high'])} | {found['n']} |"
            for name, found in report["estimates"].items()
            if found is not None
        ]
        head = f"{report['name']}: {settings['num_prompts']} prompts, {settings['seeds_per_prompt']} seeds each"
        tables.append("\n".join([head, "", "| score | value | 95 % interval | n |", "|---|---|---|---|", *lines]))
    return "## Measured scores\n" + (
        "\n\n".join(tables) or "This adapter has not been measured by `densedpo measure run`."
    )


def _made(row: Rows) -> str:
    made = row["made"]
    assert isinstance(made, dict)
    packages = made.get("packages")
    names = packages.items() if isinstance(packages, dict) else []
    return ", ".join(f"{name} {version}" for name, version in names) or "unknown versions"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
