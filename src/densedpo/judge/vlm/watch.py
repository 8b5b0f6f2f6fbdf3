"""Whether a judge that is asked twice, in both orders, says anything about the clips at all.

A judge that always says `first`, or that tosses a coin, agrees with itself no more often than a coin. Answers are held
back until enough questions have been decided both times to tell; a judge that is told from a coin by then is stored.
"""

from __future__ import annotations

import threading
from typing import Final

from scipy.stats import binomtest

from densedpo.core.errors import BadInput
from densedpo.judge.vlm.answers import Word

_ENOUGH: Final = 20  # questions with a winner in both orders; 20 of a coin's all agree once in a million
_ALL_TIES: Final = 40  # questions that were answered `tie` both times, and no other
_SURE: Final = 0.01
_SURE_AT_END: Final = 0.05


class OrderWatch:
    """Counts how answers depend on the order in which the clips were shown. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_asked = 0
        self._num_first = 0  # of the single answers that name a winner
        self._num_named = 0
        self._num_decided = 0  # both orders named a winner
        self._num_agreed = 0  # and the same clip
        self._is_sure = False

    def add(self, first: Word, second: Word) -> None:
        """One question: the answer where a was shown first, and the answer where b was."""
        with self._lock:
            self._num_asked += 1
            named = [word for word in (first, second) if word != "tie"]
            self._num_named += len(named)
            self._num_first += named.count("first")
            if len(named) == 2:
                self._num_decided += 1
                self._num_agreed += first != second  # the other place is the same clip

    @property
    def flip_rate(self) -> float | None:
        """Share of the questions decided both times in which the other order made the other clip win."""
        with self._lock:
            return 1 - self._num_agreed / self._num_decided if self._num_decided else None

    @property
    def first_share(self) -> float | None:
        """How often the clip that was shown first won: 1/2 without a bias."""
        with self._lock:
            return self._num_first / self._num_named if self._num_named else None

    def may_store(self, *, at_end: bool) -> bool:
        """Whether the judge has been told from a coin; at the end, whether nothing speaks against it.

        Raises:
            BadInput: it is no better than a coin, or it has called every one of 40 questions a tie.
        """
        with self._lock:
            if self._num_asked >= _ALL_TIES and self._num_named == 0:
                raise BadInput(f"the judge is uninformative: it called all {self._num_asked} questions ties")
            if self._num_decided < _ENOUGH:
                return at_end or self._is_sure
            chance = float(binomtest(self._num_agreed, self._num_decided, 0.5, alternative="greater").pvalue)
            self._is_sure = self._is_sure or chance < _SURE
            hopeless = 2 * self._num_agreed <= self._num_decided
            if (hopeless and not self._is_sure) or (at_end and chance >= _SURE_AT_END):
                raise BadInput(self._uninformative())
            return self._is_sure or at_end

    def _uninformative(self) -> str:
        return (
            f"the judge is uninformative: shown the same clips in the other order, it chose the same one "
            f"{self._num_agreed} times in {self._num_decided}, as a coin would (the first one shown won "
            f"{self._num_first} of {self._num_named} times); use another model or prompt"
        )
