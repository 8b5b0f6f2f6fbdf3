"""What a folder of pairs already holds, and whether more of the same may be added to it (no torch)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, from_row, write_jsonl
from densedpo.core.workspace import repair_jsonl, write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from densedpo.generate.plan import PairPlan, PlannedPair

SETTINGS_FILE: Final = "settings.json"
PAIRS_FILE: Final = "pairs.jsonl"


def remaining(plan: PairPlan) -> tuple[PlannedPair, ...]:
    """The pairs of the plan that are not there yet; changes nothing.

    Raises:
        BadInput: the folder holds pairs made with other settings or from other prompts.
    """
    require_same_settings(plan.folder, plan.settings)
    done = {pair.id for pair in finished(plan.folder)}
    planned = {each.pair.id for each in plan.pairs}
    # a plan for fewer pairs than are there asks for nothing; a pair that this plan would never make is another set's
    if len(done - planned) > max(0, len(done) - len(planned)):
        raise BadInput(
            f"{plan.folder} holds pairs of other prompts or clips than clips/ has now; give the new pairs another name"
        )
    return tuple(each for each in plan.pairs if each.pair.id not in done)


def finished(folder: Path) -> list[Pair]:
    """The pairs whose row, latents and video are all there; a torn last row does not count.

    Raises:
        BadInput: a row is not a pair.
    """
    return [p for p in _rows(folder / PAIRS_FILE) if (folder / p.latents).is_file() and (folder / p.video).is_file()]


def prepare(plan: PairPlan) -> tuple[PlannedPair, ...]:
    """Makes the folder ready to be added to, under its lock, and returns what is to be made.

    A torn last row goes, rows whose files are gone go, and so do the temporary files of a writer that was killed.
    """
    todo = remaining(plan)
    path = plan.folder / PAIRS_FILE
    repair_jsonl(path)
    whole = finished(plan.folder)
    if len(whole) < len(_rows(path)):
        write_jsonl(path, whole)
    for folder in ("latents", "videos"):
        (plan.folder / folder).mkdir(exist_ok=True)
        for leftover in [*(plan.folder / folder).glob(".*.part"), *(plan.folder / folder).glob(".*.tmp")]:
            leftover.unlink()
    write_settings(plan.folder, plan.settings)
    return todo


def write_settings(folder: Path, settings: Mapping[str, JsonValue]) -> None:
    """Says in a folder what its content depends on."""
    write_atomic(folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")


def sort_rows(plan: PairPlan) -> None:
    """Puts the rows in the plan's order, which a pair that was made again has left."""
    pairs = _rows(plan.folder / PAIRS_FILE)
    place = {each.pair.id: index for index, each in enumerate(plan.pairs)}
    ordered = sorted(pairs, key=lambda pair: place.get(pair.id, len(place)))
    if ordered != pairs:
        write_jsonl(plan.folder / PAIRS_FILE, ordered)


def require_same_settings(folder: Path, settings: Mapping[str, JsonValue]) -> None:
    """Refuses a folder whose content was made with other settings.

    Raises:
        BadInput: names the setting.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return
    try:
        stored: dict[str, JsonValue] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from None
    for key in dict.fromkeys([*stored, *settings]):
        if stored.get(key) != settings.get(key):
            before, now = _short(stored.get(key)), _short(settings.get(key))
            raise BadInput(f"{folder} was begun with {key} = {before}, not {now}; give the new pairs another name")


def _short(value: JsonValue) -> str:
    """A value as it is said in one line; of a fingerprint, its beginning."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 20 else json.dumps(value)


def _rows(path: Path) -> list[Pair]:
    """The rows of a file of pairs, without what follows its last line end."""
    if not path.exists():
        return []
    data = path.read_bytes()
    pairs = []
    for row, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n"), start=1):
        if line.strip():
            try:
                pairs.append(from_row(Pair, json.loads(line), f"{path}:{row}"))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise BadInput(f"{path}:{row}: not JSON: {error}") from None
    return pairs
