"""What a judge has cost so far, on disk, and the limits that are checked before each request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.files import append_jsonl, repair_jsonl
from densedpo.judge.protocol import Cost
from densedpo.judge.vlm.answers import Usage
from densedpo.judge.vlm.config import VlmConfig

_MILLION: Final = 1_000_000
_CHARACTERS_PER_TOKEN: Final = 2  # fewer than any tokenizer needs for English, so that the first estimate is not low


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """What one request under way may cost at most."""

    tokens: int


class Spending:
    """The running total over all runs of one judge. Used from one thread: the endpoint's."""

    def __init__(self, config: VlmConfig, ledger: Path) -> None:
        """Reads what earlier runs spent; a line that a kill cut off is dropped."""
        self._config = config
        self._ledger = ledger
        self._holds: list[Hold] = []
        self._most_tokens = 0
        self.total = Cost()
        self.this_run = Cost()
        repair_jsonl(ledger)
        for line in ledger.read_text("utf-8").splitlines() if ledger.is_file() else []:
            row = json.loads(line)
            self._count(Cost(**row))
        self.this_run = Cost()

    @property
    def is_blind(self) -> bool:
        """Whether a limit in tokens or money is set while no request has yet told what one uses."""
        return self._most_tokens == 0 and (self._config.max_tokens is not None or self._config.max_money is not None)

    def hold(self, num_characters: int) -> Hold:
        """Sets aside what one more request may cost.

        Raises:
            Interrupted: that could be more than a limit allows.
        """
        config = self._config
        estimate = max(self._most_tokens, num_characters // _CHARACTERS_PER_TOKEN) + (
            0 if self._most_tokens else config.max_output_tokens
        )
        under_way = sum(hold.tokens for hold in self._holds)
        tokens = self.total.input_tokens + self.total.output_tokens + under_way + estimate
        if config.max_requests is not None and self.total.num_requests + len(self._holds) >= config.max_requests:
            raise self._spent(f"max_requests = {config.max_requests}")
        if config.max_tokens is not None and tokens > config.max_tokens:
            raise self._spent(f"max_tokens = {config.max_tokens}")
        if config.max_money is not None:
            price = max(config.input_price or 0.0, config.output_price or 0.0) / _MILLION
            if (self.total.money or 0.0) + (under_way + estimate) * price > config.max_money:
                raise self._spent(f"max_money = {config.max_money:g}")
        hold = Hold(tokens=estimate)
        self._holds.append(hold)
        return hold

    def settle(self, hold: Hold, usage: Usage | None, *, answered: bool) -> Cost:
        """Writes down what a request cost, whether or not it was answered.

        Raises:
            BadInput: a limit in tokens or money is set and the server does not state what it used.
        """
        self._holds.remove(hold)
        tokens_matter = self._config.max_tokens is not None or self._config.max_money is not None
        cost = Cost(
            num_requests=1,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            money=self._price(usage) if answered else 0.0,  # servers do not charge for an error
        )
        row = {
            "num_requests": cost.num_requests, "input_tokens": cost.input_tokens, "output_tokens": cost.output_tokens,
            "money": cost.money,
        }  # fmt: skip
        append_jsonl(self._ledger, row)
        self._count(cost)
        if answered and usage is None and tokens_matter:
            raise BadInput("the server does not state how many tokens it used; limit the run by max_requests instead")
        return cost

    def text(self) -> str:
        """The cost of this run and of all, for a line of progress."""
        run, total = self.this_run, self.total
        money = "" if total.money is None or not self._config.input_price else f", {total.money:.4g} spent"
        return (
            f", {run.num_requests} requests, {run.input_tokens + run.output_tokens} tokens"
            f" ({total.num_requests} requests over all runs{money})"
        )

    def _price(self, usage: Usage | None) -> float | None:
        if usage is None or self._config.input_price is None or self._config.output_price is None:
            return None
        cost = usage.input_tokens * self._config.input_price + usage.output_tokens * self._config.output_price
        return cost / _MILLION

    def _count(self, cost: Cost) -> None:
        self.total = self.total.plus(cost)
        self.this_run = self.this_run.plus(cost)
        self._most_tokens = max(self._most_tokens, cost.input_tokens + cost.output_tokens)

    def _spent(self, limit: str) -> Interrupted:
        return Interrupted(
            f"{limit} is reached after {self.total.num_requests} requests; what was answered is kept: --set it higher "
            "and run the same command again to go on"
        )
