"""`densedpo judge audit`: from runs that each left out a part of the labelled pairs to the labels to look at again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from densedpo.core.errors import BadInput
from densedpo.core.files import writing
from densedpo.core.provenance import sha256_json
from densedpo.core.records import read_jsonl, write_jsonl
from densedpo.core.workspace import Project, content_hash, read_stamp
from densedpo.learn.audit.margins import LEFT_OUT_FILE, SegmentMargins
from densedpo.learn.audit.rank import Ranking, rank_segments
from densedpo.learn.course import RUN_FILE


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """A ranking of all labelled training segments, and the file that holds it."""

    path: Path
    ranking: Ranking


@dataclass(frozen=True, kw_only=True, slots=True)
class _FoldRun:
    """A finished run that left out a part; `rest` is the hash of all else that made it."""

    name: str
    margins: Path
    index: int
    num_folds: int
    inputs: Mapping[str, str]
    rest: str


def audit_labels(project: Project, preferences: str, runs: Sequence[str]) -> Audit:
    """Ranks the labels of the training pairs by the runs that left them out, into `audits/<preferences>.jsonl`.

    Args:
        preferences: the name of the set of preferences that the runs were trained on.
        runs: one finished run for each part, equal but for `fold`.

    Raises:
        BadInput: a run is missing, unfinished, has no fold or differs in more than its fold; a part is missing or there
            twice; the preferences have changed since.
    """
    path = project.preferences(preferences)
    found = [_fold_run(project, name) for name in runs]
    _require_one_for_each_part(found)
    recorded = found[0].inputs.get(project.relative(path))
    if recorded is None:
        raise BadInput(f"{found[0].name} was not trained on {project.relative(path)}")
    if not path.exists() or recorded != content_hash(path, project):
        raise BadInput(f"{project.relative(path)} has changed since the runs were trained on it; train them again")
    ranking = rank_segments([read_jsonl(run.margins, SegmentMargins) for run in found])
    target = project.root / "audits" / path.name
    target.parent.mkdir(exist_ok=True)
    with writing(target.parent):
        write_jsonl(target, ranking.suspects)
    return Audit(path=target, ranking=ranking)


def _fold_run(project: Project, name: str) -> _FoldRun:
    folder = project.run(name)
    if read_stamp(folder) is None:
        raise BadInput(f"runs/{name} is not there or not finished; train it with `densedpo learn offline {name}`")
    identity = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["identity"]
    config = dict(identity["config"])
    fold = config.pop("fold", None)
    if fold is None:
        raise BadInput(
            f"runs/{name} has seen all labels, so it cannot question any; train one run for each part with "
            '--set "fold=[0,5]", --set "fold=[1,5]" and so on'
        )
    return _FoldRun(
        name=name,
        margins=folder / LEFT_OUT_FILE,
        index=fold[0],
        num_folds=fold[1],
        inputs=identity["inputs"],
        rest=sha256_json({**identity, "config": config}),
    )


def _require_one_for_each_part(runs: Sequence[_FoldRun]) -> None:
    if not runs:
        raise BadInput("name the runs that left a part out, each with --run")
    first = runs[0]
    seen: dict[int, str] = {}
    for run in runs:
        if run.num_folds != first.num_folds:
            raise BadInput(f"{run.name} cuts the pairs into {run.num_folds} parts, {first.name} into {first.num_folds}")
        if run.rest != first.rest:
            raise BadInput(f"{run.name} and {first.name} differ in more than their fold: their margins do not compare")
        if run.index in seen:
            raise BadInput(f"{run.name} leaves out the same part as {seen[run.index]}")
        seen[run.index] = run.name
    missing = [str(index) for index in range(first.num_folds) if index not in seen]
    if missing:
        raise BadInput(f"no run leaves out part {', '.join(missing)} of {first.num_folds}; train it and name it too")
