"""Who may judge: names, and the tokens that stand for them."""

from __future__ import annotations

import re
import secrets
from typing import Final

from densedpo.core.errors import BadInput
from densedpo.judge.database import Database
from densedpo.judge.studies import ledger

OWNER: Final = "owner"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}")
_JUDGES: Final = ("oracle", "reference", "reward", "vlm", "probe")


def invite(database: Database, name: str, *, is_admin: bool) -> str:
    """Adds a person, or replaces the token of one who is there, which ends their sessions.

    Returns:
        The token: shown once, stored as its hash only.

    Raises:
        BadInput: the name cannot be one, or is a machine judge's.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot name an annotator; use letters, digits, spaces and . _ @ - (64 at most)")
    if name == OWNER or name.split("-", maxsplit=1)[0] in _JUDGES:
        raise BadInput(f"{name!r} is taken: it stands for {'the local owner' if name == OWNER else 'a machine judge'}")
    return _new_token(database, name, is_admin=is_admin, keep_sessions=False)


def owner_token(database: Database) -> str:
    """A fresh token for whoever starts the studio on their own machine; a page that is open stays signed in."""
    return _new_token(database, OWNER, is_admin=True, keep_sessions=True)


def close_owner(database: Database) -> None:
    """Makes the owner's last token worthless and ends the owner's sessions, for a studio that others can reach."""
    with database.writing() as connection:
        if ledger.person_by_name(connection, OWNER) is not None:
            ledger.set_person(connection, OWNER, secrets.token_urlsafe(32), is_admin=True, keep_sessions=False)


def _new_token(database: Database, name: str, *, is_admin: bool, keep_sessions: bool) -> str:
    token = secrets.token_urlsafe(32)
    with database.writing() as connection:
        ledger.set_person(connection, name, token, is_admin=is_admin, keep_sessions=keep_sessions)
    return token
