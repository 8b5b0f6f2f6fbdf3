"""`densedpo judge probe`: whether a judge can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from densedpo.cli.judging import open_labels, open_pairs
from densedpo.cli.options import AllowStaleOption, ConfigOption, ProjectOption, SetOption

if TYPE_CHECKING:
    from densedpo.judge.probe.records import ProbeCard
    from densedpo.metrics.statistics import Estimate

PairsArgument = Annotated[str, typer.Argument(metavar="PAIRS", help="Name of the pairs that both have judged.")]


def probe(
    annotator: Annotated[str, typer.Argument(metavar="ANNOTATOR", help="The judge that is looked at.")],
    pairs: PairsArgument,
    truth: Annotated[str, typer.Option("--truth", help="Person or judge whose answers are held to be true.")],
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Hold a judge against a known slice, probe what it looks at, and write its card."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.probe.config import ProbeConfig
    from densedpo.judge.probe.run import probe_judge

    settings = load_config(ProbeConfig, config, set_)
    found = find_project(project)
    pair_set = open_pairs(found, pairs, allow_stale=allow_stale)
    with open_labels(found, create=False) as store:
        card, path = probe_judge(found, pair_set, store, annotator=annotator, truth=truth, config=settings)
    typer.echo(_table(card))
    typer.echo(f"{annotator} {'passed' if card.passed else 'FAILED'}: {found.relative(path)}")
    for reason in card.reasons:
        typer.echo(f"  {reason}")


def _table(card: ProbeCard) -> str:
    of = f"{card.num_segments} segments of {card.num_pairs} pairs"
    how = f"95 % intervals, n = prompts, seed {card.settings['seed']}"
    lines = [f"{card.annotator} against {card.truth}: {of}; {how}"]
    for check in card.checks:
        if check.estimate is None:
            value = f"not computed: {check.reason}"
        else:
            value = f"{_value(check.estimate)} against {check.against:g}{' ALARM' if check.alarm else ''}"
        lines.append(_line(check.name, check.meaning, value))
    for accuracy in card.accuracies:
        if accuracy.unit == "clip" and accuracy.decided is not None:
            meaning = "the same as accuracy, by clip: the majority of its segments, of clips that neither ties"
            lines.append(_line("clips", meaning, _value(accuracy.decided)))
    if card.tie_margin is not None:
        lines.append(
            f"  of the {card.num_truth_ties} segments that {card.truth} ties, four in five have scores that differ by "
            f"less than {card.tie_margin:.4g}: a margin to judge by (--set margin=...)"
        )
    if not card.asked:
        lines.append(f"  the judge was not asked anything: {card.not_asked}")
    return "\n".join(lines)


def _line(name: str, meaning: str, value: str) -> str:
    return f"  {name:<9}{meaning:<88} {value}"


def _value(estimate: Estimate) -> str:
    from densedpo.judge.probe.run import estimate_text

    return f"{estimate_text(estimate)} n={estimate.n}"
