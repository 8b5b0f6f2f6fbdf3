"""Settings of `judge vlm`, and which of them make it another judge."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, model_validator

from densedpo.core.config import Config
from densedpo.core.errors import BadInput

# where and how fast questions are sent, and what they may cost, changes no answer
_NOT_ASKED: Final = frozenset(
    {
        "base_url", "key_env", "prompt", "pairs_at_once", "concurrency", "attempts", "first_wait_s", "connect_s",
        "deadline_s", "max_requests", "max_tokens", "max_money", "input_price", "output_price",
    }
)  # fmt: skip


class VlmConfig(Config):
    """Options of `judge vlm`."""

    base_url: str = Field(default="", description="the server, such as http://127.0.0.1:8000/v1")
    model: str = Field(default="", description="the model, as the server calls it")
    key_env: str = Field(
        default="OPENAI_API_KEY", description="environment variable that holds the key; empty: the server asks for none"
    )
    api: Literal["chat", "systemone"] = Field(
        default="chat",
        description="chat: /chat/completions; systemone: probabilities from /systemone of `transformers serve`",
    )
    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")
    whole_clip: bool = Field(default=False, description="ask once about the whole clip instead of segment by segment")
    frames_per_second: float = Field(default=8.0, gt=0, description="at most so many frames of each second are shown")
    image_format: Literal["png", "jpeg"] = Field(default="png", description="how frames are sent")
    min_side: int = Field(default=256, ge=1, description="smaller frames are enlarged by a whole number up to this")
    max_side: int = Field(default=768, ge=16, description="larger frames are shrunk until the longer side is this")
    max_images: int = Field(default=128, ge=2, description="pairs that need more images in one request are refused")
    prompt: str = Field(default="details-1", description="a prompt that is shipped, or a file of the same form")
    show_caption: bool = Field(default=True, description="tell the judge the caption")
    json_schema: bool = Field(
        default=True, description="ask the server to keep to a JSON schema; off for servers that refuse it"
    )
    logprobs: bool = Field(default=False, description="ask for log-probabilities, for labels with a confidence")
    temperature: Annotated[float, Field(ge=0)] | Literal["default"] = Field(
        default=0.0, description="of the model; default: none is sent, for models that take none"
    )
    seed: Annotated[int, Field(ge=0)] | Literal["none"] = Field(default=0, description="none: no seed is sent")
    max_output_tokens: int = Field(default=1024, ge=1, description="longer answers are cut and count as unreadable")
    pairs_at_once: int = Field(default=2, ge=1, le=64, description="pairs that are decoded at the same time")
    concurrency: int = Field(default=8, ge=1, le=256, description="requests under way at the same time")
    attempts: int = Field(default=5, ge=1, le=20, description="how often a request is sent before it counts as failed")
    first_wait_s: float = Field(
        default=1.0, gt=0, description="longest wait before the second attempt; then it doubles"
    )
    connect_s: float = Field(default=10.0, gt=0, description="time to reach the server")
    deadline_s: float = Field(default=180.0, gt=0, description="time for one question with all its attempts")
    max_requests: int | None = Field(
        default=None, ge=1, description="stop before more requests than this, over all runs"
    )
    max_tokens: int | None = Field(default=None, ge=1, description="stop before more tokens than this, over all runs")
    max_money: float | None = Field(
        default=None, gt=0, description="stop before spending more than this, over all runs"
    )
    input_price: float | None = Field(default=None, ge=0, description="price of a million input tokens")
    output_price: float | None = Field(default=None, ge=0, description="price of a million output tokens")

    @model_validator(mode="after")
    def _prices_for_a_budget(self) -> Self:
        if self.max_money is not None and (self.input_price is None or self.output_price is None):
            raise ValueError("max_money needs input_price and output_price: what a request costs is not known")
        if self.max_side < self.min_side:
            raise ValueError("max_side is at least min_side")
        return self

    @property
    def seconds(self) -> float | None:
        """Length of what is asked about; None for the whole clip."""
        return None if self.whole_clip else self.segment_seconds

    def options(self) -> dict[str, JsonValue]:
        """What the answers depend on, apart from the prompt."""
        options: dict[str, JsonValue] = self.model_dump(exclude=set(_NOT_ASKED), mode="json")
        return options


def require_endpoint(config: VlmConfig) -> None:
    """Refuses settings that name no server or model, or that hold a secret.

    Raises:
        BadInput: says what to set.
    """
    if not config.base_url:
        raise BadInput(
            "no server to ask: --set base_url=http://127.0.0.1:8000/v1 (any server that speaks the OpenAI wire format, "
            "such as vLLM or `transformers serve`)"
        )
    parts = urlsplit(config.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("base_url is no http or https address; write it as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise BadInput("base_url holds a name, a password or a query; put the key into the environment (key_env)")
    if not config.model:
        raise BadInput("no model named: --set model=NAME, as the server calls it")
