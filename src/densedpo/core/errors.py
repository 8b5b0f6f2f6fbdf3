"""The two errors that a user of the package meets; everything else that is raised is a fault of ours."""

from __future__ import annotations


class BadInput(ValueError):
    """Input that cannot be used. The message is one line that names the thing and the remedy; exit code 2."""


class Interrupted(Exception):
    """Work cut short on purpose with everything needed to go on already on disk; exit code 75."""

    exit_code = 75
