"""The command line, run inside the test's own process (fast) or as a process of its own (real)."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


def densedpo(*arguments: str | Path) -> Done:
    """Runs the same function as the `densedpo` script, in this process."""
    from densedpo.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    code: str | int | None = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run([str(argument) for argument in arguments])
        except SystemExit as leave:
            code = leave.code
    assert isinstance(code, int)
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


def densedpo_process(*arguments: str | Path, program: str = "from densedpo.cli.main import run; run()") -> Done:
    """Runs the command as a process of its own; `program` may do something before or after."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def settings(**values: object) -> list[str]:
    """`--set key=value` for each value; a double underscore stands for the dot of a nested key."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={_toml(value)}")]


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
