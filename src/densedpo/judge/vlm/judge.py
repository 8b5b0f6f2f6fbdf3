"""A vision-language model as a judge, as DenseDPO labels with one (appendix A.6 of arXiv 2506.03517).

Each segment is asked about twice, once with either clip first. Where the two answers disagree, the segment is a tie.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from densedpo.core.errors import BadInput
from densedpo.core.files import naming_disk_errors
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Pair
from densedpo.judge.protocol import Answer, Cost, Failure, PairClips, SegmentAnswer
from densedpo.judge.vlm.answers import Choice, Word, read_chat, read_systemone
from densedpo.judge.vlm.config import VlmConfig, require_endpoint
from densedpo.judge.vlm.endpoint import Endpoint
from densedpo.judge.vlm.frames import images, shown_frames, spread
from densedpo.judge.vlm.prompt import Prompt
from densedpo.judge.vlm.refusals import Secret
from densedpo.judge.vlm.replies import Replies
from densedpo.judge.vlm.spending import Spending
from densedpo.judge.vlm.watch import OrderWatch
from densedpo.judge.vlm.wire import MAX_SYSTEMONE_IMAGES, Request, request_for

_VERSION: Final = 1
_A_FIRST: Final[dict[Word, Answer]] = {"first": "a", "second": "b", "tie": "tie"}
_B_FIRST: Final[dict[Word, Answer]] = {"first": "b", "second": "a", "tie": "tie"}
Range = tuple[int, int]


class VlmJudge:
    """Asks a server which clip has fewer faults, segment by segment. Use it as a context manager.

    `watch` tells whether its answers depend on more than the order of the clips, `spending` what they cost.
    """

    def __init__(self, config: VlmConfig, *, key: str, folder: Path) -> None:
        """Opens the connection; nothing is asked yet.

        Args:
            key: the server's key, empty where it asks for none.
            folder: where judges of this project keep replies and costs; this one takes a folder of its own in it.

        Raises:
            BadInput: no server, no model, or no such prompt.
        """
        require_endpoint(config)
        self._config = config
        self._prompt = Prompt.load(config.prompt)
        options = {**config.options(), "prompt": self._prompt.name, "prompt_sha256": self._prompt.sha256}
        slug = re.sub(r"[^a-z0-9.]+", "-", config.model.lower()).strip("-.")[-32:].strip("-.")
        self._annotator = f"vlm-{slug or 'model'}-{sha256_json(options)[:8]}"
        self._instructions = f"vlm {_VERSION}: {json.dumps(options, sort_keys=True)}"
        self.folder: Final = folder / self._annotator
        with naming_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.watch: Final = OrderWatch()
        self.spending: Final = Spending(config, self.folder / "spent.jsonl")
        self._replies = Replies(folder=self.folder / "replies")
        self._under_way: dict[str, asyncio.Task[tuple[Choice | Failure, Cost]]] = {}
        self._endpoint = Endpoint(config, Secret(value=key, variable=config.key_env), self.spending)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._endpoint.__exit__(kind, error, trace)

    @property
    def annotator(self) -> str:
        """`vlm-`, the model, and eight digits of the hash of all that the answers depend on."""
        return self._annotator

    @property
    def instructions(self) -> str:
        """The judge's version, its options, and the name and hash of the prompt."""
        return self._instructions

    def check(self, pair: Pair) -> None:
        """Refuses a pair that needs too many images in one request.

        Raises:
            BadInput: says how many, and what to lower.
        """
        seconds = self._config.seconds
        longest = pair.num_frames if seconds is None else min(pair.num_frames, round(1.5 * seconds * pair.fps) + 1)
        num_images = 2 * len(self._frames(pair, (0, longest)))
        if num_images > self._config.max_images:
            raise BadInput(
                f"pair {pair.id} needs up to {num_images} images in one request, more than max_images = "
                f"{self._config.max_images}; lower frames_per_second or raise max_images"
            )

    def judge(self, clips: PairClips, segments: Sequence[Range]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment; the scores are the probabilities of a and of b where the server gives them.

        The confidence is the mean over both orders of the probability of the answer plus half of that of a tie.

        Raises:
            BadInput: the server will never answer such questions.
            Interrupted: a limit is reached, or the server is gone.
        """
        questions = [self._both_orders(clips, segment) for segment in segments]
        return tuple(self._endpoint.run(self._answers(questions)))

    async def _answers(self, questions: Sequence[tuple[Request, Request]]) -> list[SegmentAnswer]:
        # all are waited for, so that what was paid for is kept even where one of them ends the run
        found = await asyncio.gather(*(self._answer(*question) for question in questions), return_exceptions=True)
        answers: list[SegmentAnswer] = []
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        return answers

    async def _answer(self, a_first: Request, b_first: Request) -> SegmentAnswer:
        one, other = await asyncio.gather(self._choice(a_first), self._choice(b_first), return_exceptions=True)
        for found in (one, other):
            if isinstance(found, BaseException):
                raise found
        assert not isinstance(one, BaseException)
        assert not isinstance(other, BaseException)
        (first, first_cost), (second, second_cost) = one, other
        cost = first_cost.plus(second_cost)
        if isinstance(first, Choice) and isinstance(second, Choice):
            self.watch.add(first.word, second.word)
        return combined(first, second, cost=cost)

    async def _choice(self, request: Request) -> tuple[Choice | Failure, Cost]:
        """One answer; the same question, asked again while it is under way, waits for the first one's answer."""
        under_way = self._under_way.get(request.key)
        if under_way is not None:
            return (await under_way)[0], Cost(num_cached=1)
        task = self._under_way[request.key] = asyncio.create_task(self._asked(request))
        try:
            return await task
        finally:
            del self._under_way[request.key]

    async def _asked(self, request: Request) -> tuple[Choice | Failure, Cost]:
        read = read_chat if self._config.api == "chat" else read_systemone
        kept = self._replies.find(request)
        if kept is not None and isinstance(choice := read(kept), Choice):
            return choice, Cost(num_cached=1)
        reply, cost = await self._endpoint.send(request)
        if isinstance(reply, Failure):
            return reply, cost
        found = read(reply)
        if isinstance(found, Choice):  # what could not be read is asked again by the next run
            self._replies.keep(request, reply)
        return found, cost

    def _both_orders(self, clips: PairClips, segment: Range) -> tuple[Request, Request]:
        config = self._config
        a, b = (
            images(
                clip,
                self._frames(clips.pair, segment),
                image_format=config.image_format,
                min_side=config.min_side,
                max_side=config.max_side,
            )
            for clip in (clips.a, clips.b)
        )
        caption = clips.pair.caption if config.show_caption else None
        return (
            request_for(config, self._prompt, caption, a, b),
            request_for(config, self._prompt, caption, b, a),
        )

    def _frames(self, pair: Pair, segment: Range) -> tuple[int, ...]:
        frames = shown_frames(*segment, fps=pair.fps, frames_per_second=self._config.frames_per_second)
        return spread(frames, MAX_SYSTEMONE_IMAGES // 2) if self._config.api == "systemone" else frames


def combined(a_first: Choice | Failure, b_first: Choice | Failure, *, cost: Cost) -> SegmentAnswer:
    """What two answers in both orders add up to: the same clip twice wins, all else is a tie; a failure is none."""
    for found in (a_first, b_first):
        if isinstance(found, Failure):
            return SegmentAnswer(answer="skip", failure=found, cost=cost)
    assert isinstance(a_first, Choice)
    assert isinstance(b_first, Choice)
    one, other = _A_FIRST[a_first.word], _B_FIRST[b_first.word]
    answer: Answer = one if one == other else "tie"
    if a_first.probabilities is None or b_first.probabilities is None:
        return SegmentAnswer(answer=answer, cost=cost)
    p_a = (a_first.probabilities[0] + b_first.probabilities[1]) / 2
    p_b = (a_first.probabilities[1] + b_first.probabilities[0]) / 2
    p_tie = (a_first.probabilities[2] + b_first.probabilities[2]) / 2
    sure = {"a": p_a + p_tie / 2, "b": p_b + p_tie / 2}.get(answer)
    confidence = None if sure is None else min(1.0, sure)
    return SegmentAnswer(answer=answer, score_a=p_a, score_b=p_b, confidence=confidence, cost=cost)
