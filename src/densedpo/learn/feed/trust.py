"""Whether a file of preferences may be learned from: what its header says of the judges that made it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from densedpo.core.errors import BadInput
from densedpo.core.records import from_row
from densedpo.judge.probe.verdict import ProbeVerdict

_log = logging.getLogger("densedpo")


def num_header_rows(preferences: Path) -> int:
    """1 if the file begins with a `{"header": ...}` row, else 0."""
    try:
        with preferences.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except FileNotFoundError:
        raise BadInput(f"{preferences}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        return 0
    return int(isinstance(first, dict) and set(first) == {"header"})


def require_trusted(preferences: Path, *, allow_failed_judge: bool) -> None:
    """Refuses labels of a judge that failed its probe, as the header says; what was not probed is not refused.

    Raises:
        BadInput: names the judge, why it failed and the way out; or the header's probes cannot be read.
    """
    if not num_header_rows(preferences):
        return
    with preferences.open(encoding="utf-8") as file:
        header = json.loads(file.readline())["header"]
    probes = header.get("probes", []) if isinstance(header, dict) else []
    for row in probes:
        verdict = from_row(ProbeVerdict, row, f"{preferences}:1: probes")
        require_passed(verdict, where=str(preferences), setting="allow_failed_judge", allowed=allow_failed_judge)


def require_passed(verdict: ProbeVerdict, *, where: str, setting: str, allowed: bool) -> None:
    """Refuses a judge that failed its probe; where a setting allows it, says so.

    Raises:
        BadInput: names the judge, why it failed and the setting.
    """
    if verdict.passed:
        return
    said = f"{where}: {verdict.annotator!r} failed its probe ({'; '.join(verdict.reasons)})"
    if not allowed:
        raise BadInput(f"{said}; use another judge, or pass --set {setting}=true")
    _log.warning("%s; learning from it all the same, as %s says", said, setting)
