"""The two forms of a question on the wire: chat completions, and typed decisions of `transformers serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from densedpo.core.provenance import sha256_json
from densedpo.judge.vlm.answers import WORDS
from densedpo.judge.vlm.config import VlmConfig
from densedpo.judge.vlm.prompt import Prompt

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_SYSTEMONE_IMAGES: Final = 4  # the most that a request of /systemone may hold
_TOP_LOGPROBS: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question as it is sent: a path below `base_url` and a JSON body."""

    path: str
    body: dict[str, JsonValue]

    @property
    def key(self) -> str:
        """sha256 of all that is sent: prompt, frames, model and parameters."""
        return sha256_json([self.path, self.body])

    @property
    def num_characters(self) -> int:
        """Length of the texts in it, without the images."""
        return _text_length(self.body)


def request_for(
    config: VlmConfig, prompt: Prompt, caption: str | None, first: Sequence[str], second: Sequence[str]
) -> Request:
    """The question which of two videos is better.

    Args:
        caption: None where it is not told.
        first: the frames of the video that is shown first, base64.
        second: the same of the other.
    """
    match config.api:
        case "chat":
            return _chat(config, prompt, caption, first, second)
        case "systemone":
            return _systemone(config, prompt, caption, first, second)


def _chat(
    config: VlmConfig, prompt: Prompt, caption: str | None, first: Sequence[str], second: Sequence[str]
) -> Request:
    def pictures(images: Sequence[str]) -> list[JsonValue]:
        url = f"data:image/{config.image_format};base64,"
        return [{"type": "image_url", "image_url": {"url": url + image}} for image in images]

    content: list[JsonValue] = [
        _text(prompt.opening(caption)), *pictures(first), _text(prompt.between), *pictures(second), _text(prompt.after)
    ]  # fmt: skip
    body: dict[str, JsonValue] = {
        "model": config.model,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}],
        "max_completion_tokens": config.max_output_tokens,
    }
    if config.temperature != "default":
        body["temperature"] = config.temperature
    if config.seed != "none":
        body["seed"] = config.seed
    if config.json_schema:
        body["response_format"] = _schema()
    if config.logprobs:
        body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
    return Request(path="/chat/completions", body=body)


def _systemone(
    config: VlmConfig, prompt: Prompt, caption: str | None, first: Sequence[str], second: Sequence[str]
) -> Request:
    first_names = [f"first-video-frame-{number}" for number in range(1, len(first) + 1)]
    second_names = [f"second-video-frame-{number}" for number in range(1, len(second) + 1)]
    parts = [
        prompt.system, prompt.opening(caption), *first_names, prompt.between, *second_names,
    ]  # fmt: skip
    assets: dict[str, JsonValue] = {
        name: {"data_base64": image}
        for name, image in zip([*first_names, *second_names], [*first, *second], strict=True)
    }
    question: JsonValue = {
        "type": "choice",
        # the last paragraph of a prompt asks for JSON, which nothing is generated for here
        "instructions": prompt.after.rpartition("\n\n")[0] or prompt.after,
        "criteria": {
            "first": "The first video is better",
            "second": "The second video is better",
            "tie": "Neither is clearly better",
        },
    }
    body: dict[str, JsonValue] = {
        "model": config.model, "state": "\n".join(parts), "questions": {"better": question}, "assets": assets,
    }  # fmt: skip
    return Request(path="/systemone", body=body)


def _text(text: str) -> JsonValue:
    return {"type": "text", "text": text}


def _schema() -> JsonValue:
    return {
        "type": "json_schema",
        "json_schema": {
            "name": "comparison",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "answer": {"type": "string", "enum": list(WORDS)},
                    "reason": {"type": "string"},
                },
                "required": ["answer", "reason"],
                "additionalProperties": False,
            },
        },
    }


def _text_length(value: JsonValue) -> int:
    match value:
        case str():
            return 0 if value.startswith("data:") else len(value)
        case list():
            return sum(map(_text_length, value))
        case dict():
            return sum(_text_length(inner) for key, inner in value.items() if key != "assets")
    return 0
