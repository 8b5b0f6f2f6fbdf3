"""What a comparison found, in words that say no more than the intervals do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from densedpo.measure.differences import Difference, Verdict
from densedpo.measure.numbers import evidence_text, number, p_text
from densedpo.measure.score import METRICS, Metric

HEADLINE_METRIC: Final = "visual_quality"
MOTION_METRIC: Final = "object_motion"
_BY_KEY: Final = {metric.key: metric for metric in METRICS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One sentence, the numbers that it rests on, and what keeps it from saying more."""

    verdict: Verdict
    sentence: str
    evidence: str
    caveat: str
    difference: Difference

    @property
    def text(self) -> str:
        """The sentence with its numbers."""
        return ". ".join(part for part in (f"{self.sentence}: {self.evidence}".rstrip(": "), self.caveat) if part) + "."


def headline(differences: list[Difference], *, base: str, tuned: str) -> Finding:
    """The finding about visual quality; where there is no known scene, about motion, which any video has."""
    quality = _find(differences, base, tuned, HEADLINE_METRIC)
    return _finding(quality if quality.estimate is not None else _find(differences, base, tuned, MOTION_METRIC))


def further_findings(differences: list[Difference], *, base: str, tuned: str, controls: list[str]) -> list[Finding]:
    """What else has to be said: motion always, the other scores where they changed, and each control."""
    quality = _find(differences, base, tuned, HEADLINE_METRIC)
    found = [] if quality.estimate is None else [_finding(_find(differences, base, tuned, MOTION_METRIC))]
    for key in ("temporal_consistency", "text_alignment", "dynamic_degree"):
        difference = _find(differences, base, tuned, key)
        if difference.verdict not in ("not significant", "not computed"):
            found.append(_finding(difference))
    if quality.estimate is not None:
        found += [_finding(_find(differences, control, tuned, HEADLINE_METRIC)) for control in controls]
    return found


def _find(differences: list[Difference], base: str, other: str, metric: str) -> Difference:
    return next(d for d in differences if (d.base, d.other, d.metric) == (base, other, metric))


def _finding(difference: Difference) -> Finding:
    metric, estimate = _BY_KEY[difference.metric], difference.estimate
    evidence = "" if estimate is None else evidence_text(estimate, metric.unit)
    return Finding(
        verdict=difference.verdict,
        sentence=_sentence(metric, difference),
        evidence=evidence,
        caveat=_caveat(difference),
        difference=difference,
    )


def _sentence(metric: Metric, difference: Difference) -> str:
    what, base, other = metric.label.lower(), difference.base, difference.other
    match difference.verdict:
        case "better":
            return (
                f"{other} gains {what} over {base}"
                if metric.goal == "higher"
                else f"{other} has less {what} than {base}"
            )
        case "worse":
            return (
                f"{other} loses {what} against {base}"
                if metric.goal == "higher"
                else f"{other} has more {what} than {base}"
            )
        case "less":
            return f"{other} loses {what} against {base}"
        case "more":
            return f"{other} has more {what} than {base}"
        case "not computed":
            return f"Nothing is known about {what}: it was not computed"
        case "not significant":
            assert difference.estimate is not None
            kind = "change" if metric.goal == "keep" else "gain"
            return (
                f"No {kind} in {what} is shown for {other} against {base}, not significant at n={difference.estimate.n}"
            )


def _caveat(difference: Difference) -> str:
    """Why no more is said: a correction that took a claim back, or a sample too small to see the effect."""
    if difference.verdict != "not significant" or difference.estimate is None:
        return ""
    parts = []
    if difference.lost_to_holm:
        assert difference.claim is not None
        parts.append(
            "Its own interval excludes zero, but corrected for "
            f"{difference.claim.num_claims} claims p {p_text(difference.claim.p_holm)}"
        )
    if difference.detectable is not None:
        size, share = number(difference.detectable.value), 100 * difference.detectable.power
        parts.append(f"With this many prompts a difference of {size} would be found {share:.0f} % of the time")
    return ". ".join(parts)
