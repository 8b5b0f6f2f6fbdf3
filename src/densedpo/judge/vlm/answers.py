"""Reading what a server sent: an answer with its probabilities, or a typed failure; never a guess.

Nothing is repaired. A reply that was cut, that says more than was asked or that says it in other words is no answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from densedpo.judge.protocol import Failure

Word = Literal["first", "second", "tie"]
WORDS: Final[tuple[Word, ...]] = ("first", "second", "tie")
Probabilities = tuple[float, float, float]  # in the order of WORDS
_LEAST_MASS: Final = 0.5  # of the answer's token: less says that the three words were not what was weighed


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What the model chose, in terms of the order in which it was shown the videos."""

    word: Word
    probabilities: Probabilities | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens that one request used, as the server states them."""

    input_tokens: int
    output_tokens: int


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _ChatUsage(_Part):
    prompt_tokens: int
    completion_tokens: int


class _SystemOneUsage(_Part):
    input_tokens: int
    output_tokens: int


class _Candidate(_Part):
    token: str
    logprob: float


class _Token(_Candidate):
    top_logprobs: list[_Candidate] = []


class _Logprobs(_Part):
    content: list[_Token] | None = None


class _Message(_Part):
    content: str | None = None
    refusal: str | None = None


class _ChatChoice(_Part):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chat(_Part):
    choices: list[_ChatChoice]


class _Weighed(_Part):
    choice: str
    probabilities: dict[str, float]


class _SystemOne(_Part):
    answers: dict[str, _Weighed]


class _Used(_Part):
    usage: _ChatUsage | _SystemOneUsage | None = None


def usage_of(reply: str) -> Usage | None:
    """What a reply says that it used; None where it does not say."""
    try:
        used = _Used.model_validate_json(reply).usage
    except ValidationError:
        return None
    match used:
        case _ChatUsage():
            return Usage(input_tokens=used.prompt_tokens, output_tokens=used.completion_tokens)
        case _SystemOneUsage():
            return Usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
    return None


def read_chat(reply: str) -> Choice | Failure:
    """The answer in the body of a reply of /chat/completions."""
    try:
        chat = _Chat.model_validate_json(reply)
    except ValidationError:
        return Failure(kind="malformed", detail=f"no chat completion: {_shown(reply)}")
    if len(chat.choices) != 1:
        return Failure(kind="malformed", detail=f"{len(chat.choices)} choices instead of one")
    choice = chat.choices[0]
    text = choice.message.content
    if choice.finish_reason == "length":
        return Failure(kind="truncated", detail="cut at the length limit; --set max_output_tokens higher")
    if choice.finish_reason == "content_filter":
        return Failure(kind="filtered", detail="stopped by a content filter")
    if choice.message.refusal:
        return Failure(kind="refused", detail=_shown(choice.message.refusal))
    if not text or not text.strip():
        return Failure(kind="empty", detail="no text")
    word = _word_of(text)
    if isinstance(word, Failure):
        return word
    tokens = choice.logprobs.content if choice.logprobs is not None else None
    return Choice(word=word, probabilities=_probabilities(text, tokens or []))


def read_systemone(reply: str) -> Choice | Failure:
    """The answer in the body of a reply of /systemone to the question `better`."""
    try:
        weighed = _SystemOne.model_validate_json(reply).answers["better"]
        first, second, tie = (weighed.probabilities[word] for word in WORDS)
    except (ValidationError, KeyError):
        return Failure(kind="malformed", detail=f"no answer to the question: {_shown(reply)}")
    probabilities = (first, second, tie)
    if len(weighed.probabilities) != len(WORDS) or not math.isclose(sum(probabilities), 1, abs_tol=1e-3):
        return Failure(kind="malformed", detail=f"no probabilities of the three answers: {weighed.probabilities}")
    return Choice(word=WORDS[probabilities.index(max(probabilities))], probabilities=probabilities)


def _word_of(text: str) -> Word | Failure:
    fenced = re.fullmatch(r"\s*```(?:json)?\n(.*)\n```\s*", text, flags=re.DOTALL)
    try:
        value = json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_without_repeats)
    except ValueError as error:
        return Failure(kind="malformed", detail=f"not one JSON object ({error}): {_shown(text)}")
    if not isinstance(value, dict) or not {"answer"} <= set(value) <= {"answer", "reason"}:
        return Failure(kind="malformed", detail=f"other keys than answer and reason: {_shown(text)}")
    if value["answer"] not in WORDS:
        return Failure(kind="malformed", detail=f"answers are {', '.join(WORDS)}, not {_shown(str(value['answer']))}")
    return cast("Word", value["answer"])


def _without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _probabilities(text: str, tokens: Sequence[_Token]) -> Probabilities | None:
    """The weights of the three words at the token where the answer's word begins, made to add up to 1."""
    found = re.search(r'"answer"\s*:\s*"', text)
    if found is None or "".join(token.token for token in tokens) != text:
        return None
    position = 0
    for token in tokens:
        if position <= found.end() < position + len(token.token):
            lead = token.token[: found.end() - position]
            return _weights(token.top_logprobs or [token], lead)
        position += len(token.token)
    return None


def _weights(candidates: Sequence[_Candidate], lead: str) -> Probabilities | None:
    mass = dict.fromkeys(WORDS, 0.0)
    for candidate in candidates:
        begun = candidate.token.removeprefix(lead).rstrip('"') if candidate.token.startswith(lead) else ""
        for word in WORDS:
            if begun and (word.startswith(begun) or begun.startswith(word)):
                mass[word] += math.exp(candidate.logprob)
    total = sum(mass.values())
    if total < _LEAST_MASS:
        return None
    return mass["first"] / total, mass["second"] / total, mass["tie"] / total


def _shown(text: str) -> str:
    one_line = " ".join(text.split())
    return repr(one_line if len(one_line) <= 80 else one_line[:77] + "...")
