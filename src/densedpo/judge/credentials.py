"""What must not stand on a command line, where every user of the machine can read it: secrets from the environment.

The one module, beside distributed training, that reads the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from densedpo.core.errors import BadInput

DATABASE_URL: Final = "DENSEDPO_DATABASE_URL"


def labels_at(labels_db: Path) -> Path | URL:
    """Where labels are kept: in the project's own file, or in the PostgreSQL database that the environment names.

    Raises:
        BadInput: the variable holds no URL of a PostgreSQL database.
    """
    text = os.environ.get(DATABASE_URL, "").strip()
    if not text:
        return labels_db
    try:
        url = make_url(text)
    except ArgumentError:
        raise BadInput(f"{DATABASE_URL} is no URL; write postgresql://user:password@host/database") from None
    if url.get_backend_name() != "postgresql" or not url.database:
        raise BadInput(f"{DATABASE_URL} must name a PostgreSQL database: postgresql://user:password@host/database")
    return url


def api_key(variable: str) -> str:
    """The key of a server, from the environment variable that the settings name; empty where they name none.

    Raises:
        BadInput: the variable is not set.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BadInput(
            f"{variable} is not set: put the server's key into the environment under this name (key_env names another) "
            "or --set key_env= for a server that asks for none"
        )
    return key
