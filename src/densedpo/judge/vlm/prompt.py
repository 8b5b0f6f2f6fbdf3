"""What the model is asked: a text file with places for the caption and for the frames of both videos."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput

_PLACES: Final = ("{{caption}}", "{{first}}", "{{second}}")
_MAX_CAPTION: Final = 4000  # characters
_ESCAPED: Final = frozenset("<>&{}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A prompt: what stands before the first video's frames, between them and the second's, and after both."""

    name: str
    sha256: str  # of the file
    system: str
    before: str  # holds the place of the caption
    between: str
    after: str

    @classmethod
    def load(cls, name: str) -> Prompt:
        """A prompt that is shipped (`details-1`), or one from a file.

        A file holds the system text, a line of three dashes, and the question with `{{caption}}`, `{{first}}` and
        `{{second}}` once each, in this order.

        Raises:
            BadInput: there is no such prompt, or it is not of this form.
        """
        shipped = files("densedpo.judge.vlm") / "prompts" / f"{name}.txt"
        try:
            text = shipped.read_text() if "/" not in name and shipped.is_file() else Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            raise BadInput(f"prompt {name!r} is neither a shipped one (details-1) nor a text file") from None
        system, dashes, question = text.partition("\n---\n")
        order = [question.find(place) for place in _PLACES]
        if not dashes or any(question.count(place) != 1 for place in _PLACES) or order != sorted(order):
            raise BadInput(
                f"prompt {name!r} needs a system text, a line of three dashes, and then once each and in this order "
                f"{', '.join(_PLACES)}"
            )
        before, _, rest = question.partition("{{first}}")
        between, _, after = rest.partition("{{second}}")
        return cls(
            name=Path(name).stem,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            system=system.strip(),
            before=before.strip(),
            between=between.strip(),
            after=after.strip(),
        )

    def opening(self, caption: str | None) -> str:
        """What stands before the first frames; None where the caption is not told."""
        return self.before.replace("{{caption}}", "(not told)" if caption is None else quoted(caption))


def quoted(caption: str) -> str:
    """A caption as a JSON string that can end neither the string nor the tag around it.

    Angle brackets, braces and characters that cannot be seen or that change the direction of writing are escaped; very
    long captions are cut.
    """
    cut = caption if len(caption) <= _MAX_CAPTION else caption[:_MAX_CAPTION] + " (cut)"
    text = json.dumps(cut, ensure_ascii=False)
    return "".join(_escape(char) if char in _ESCAPED or unicodedata.category(char)[0] == "C" else char for char in text)


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 0x7E else f"\\u{ord(char):04x}"
