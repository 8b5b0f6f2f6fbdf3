"""What a judge has cost so far, on disk, and the limits that are checked before each request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.files import append_jsonl, repair_jsonl
from densedpo.core.records import read_jsonl, to_row
from densedpo.judge.protocol import Cost
from densedpo.judge.vlm.answers import Usage
from densedpo.judge.vlm.config import VlmConfig

_MILLION: Final = 1_000_000
_CHARACTERS_PER_TOKEN: Final = 2  # fewer than any tokenizer needs for English, so that the first estimate is not low


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """What one request under way may cost at most."""

    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """One request as the ledger keeps it; `is_estimate` where nobody stated what it used."""

    num_requests: int
    input_tokens: int
    output_tokens: int
    money: float | None
    is_estimate: bool = False


class Spending:
    """The running total over all runs of one judge. Used from one thread: the endpoint's."""

    def __init__(self, config: VlmConfig, ledger: Path) -> None:
        """Reads what earlier runs spent; a line that a kill cut off is dropped.

        Raises:
            BadInput: the file is damaged in another way.
        """
        self._config = config
        self._ledger = ledger
        self._holds: list[Hold] = []
        self._most_tokens = 0
        self.total = Cost()
        self.this_run = Cost()
        repair_jsonl(ledger)
        for row in read_jsonl(ledger, Spent) if ledger.is_file() else ():
            self._count(row)
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
        money = (self.total.money or 0.0) + (under_way + estimate) * self._highest_price
        if config.max_money is not None and money > config.max_money:
            raise self._spent(f"max_money = {config.max_money:g}")
        hold = Hold(tokens=estimate)
        self._holds.append(hold)
        return hold

    def settle(self, hold: Hold, usage: Usage | None) -> Cost:
        """Writes down what a request cost that was answered.

        Raises:
            BadInput: a limit in tokens or money is set and the server does not state what it used.
        """
        cost = self._written(hold, usage or Usage(input_tokens=0, output_tokens=0), money=self._price(usage))
        if usage is None and (self._config.max_tokens is not None or self._config.max_money is not None):
            raise BadInput("the server does not state how many tokens it used; limit the run by max_requests instead")
        return cost

    def settle_unanswered(self, hold: Hold, *, is_free: bool) -> Cost:
        """Writes down a request without an answer.

        Args:
            is_free: the server refused it or was never reached; else it may have been charged for, and counts as all
                that was set aside for it, the whole answer included.
        """
        nothing = Usage(input_tokens=0, output_tokens=0)
        if is_free:
            return self._written(hold, nothing, money=0.0)
        priced = self._config.input_price is not None and self._config.output_price is not None
        most = Usage(input_tokens=hold.tokens, output_tokens=0)
        return self._written(hold, most, money=hold.tokens * self._highest_price if priced else None, is_estimate=True)

    def _written(self, hold: Hold, usage: Usage, *, money: float | None, is_estimate: bool = False) -> Cost:
        self._holds.remove(hold)
        row = Spent(
            num_requests=1,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            money=money,
            is_estimate=is_estimate,
        )
        append_jsonl(self._ledger, to_row(row))
        return self._count(row)

    def text(self) -> str:
        """The cost of this run and of all, for a line of progress."""
        run, total = self.this_run, self.total
        money = "" if total.money is None or not self._config.input_price else f", {total.money:.4g} spent"
        return (
            f", {run.num_requests} requests, {run.input_tokens + run.output_tokens} tokens"
            f" ({total.num_requests} requests over all runs{money})"
        )

    @property
    def _highest_price(self) -> float:
        """Of one token, in whichever direction."""
        return max(self._config.input_price or 0.0, self._config.output_price or 0.0) / _MILLION

    def _price(self, usage: Usage | None) -> float | None:
        if usage is None or self._config.input_price is None or self._config.output_price is None:
            return None
        cost = usage.input_tokens * self._config.input_price + usage.output_tokens * self._config.output_price
        return cost / _MILLION

    def _count(self, row: Spent) -> Cost:
        cost = Cost(
            num_requests=row.num_requests,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            money=row.money,
        )
        self.total = self.total.plus(cost)
        self.this_run = self.this_run.plus(cost)
        if not row.is_estimate:  # only a server's own word tells what a request uses
            self._most_tokens = max(self._most_tokens, cost.input_tokens + cost.output_tokens)
        return cost

    def _spent(self, limit: str) -> Interrupted:
        return Interrupted(
            f"{limit} is reached after {self.total.num_requests} requests; what was answered is kept: --set it higher "
            "and run the same command again to go on"
        )
