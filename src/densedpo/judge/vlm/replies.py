"""Replies kept on disk by the hash of the question, so that asking again costs nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from densedpo.core.files import write_atomic
from densedpo.judge.vlm.wire import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Replies:
    """A folder of replies as the server sent them, with its own ids; each file is written whole or not at all."""

    folder: Path

    def find(self, request: Request) -> str | None:
        """The reply to this question, None where it was not asked or the file is damaged."""
        try:
            kept = json.loads(self._path(request).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        reply = kept.get("reply") if isinstance(kept, dict) and kept.get("request") == request.key else None
        return reply if isinstance(reply, str) else None

    def keep(self, request: Request, reply: str) -> None:
        """Stores a reply with what was asked of the model, apart from the texts and images of the question."""
        asked = {
            key: value
            for key, value in request.body.items()
            if key not in ("messages", "state", "assets", "questions", "response_format")
        }
        row = {
            "request": request.key,
            "path": request.path,
            "asked": asked,
            "received_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "reply": reply,
        }
        write_atomic(self._path(request), json.dumps(row, ensure_ascii=False) + "\n")

    def _path(self, request: Request) -> Path:
        return self.folder / request.key[:2] / f"{request.key}.json"
