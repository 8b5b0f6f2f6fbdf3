"""Prints docs/cli.md from the commands themselves, so that the page cannot disagree with them."""

from __future__ import annotations

from typer.core import TyperGroup
from typer.main import get_command

from densedpo.cli.main import app

HEAD = """# The command line

Made from the commands themselves by `make docs`. Exit codes: 0 done, 2 bad input, 75 cut short and resumable by running
the same command again, 130 interrupted. `-q` and `-v` may stand anywhere.
"""


def main() -> None:
    """Prints the page."""
    print(HEAD)
    _describe(get_command(app), "densedpo")


def _describe(command: object, name: str) -> None:
    assert isinstance(command, TyperGroup)
    for inner_name in command.list_commands(None):
        inner = command.get_command(None, inner_name)
        assert inner is not None
        path = f"{name} {inner_name}"
        if isinstance(inner, TyperGroup):
            _describe(inner, path)
            continue
        arguments = [param for param in inner.params if param.param_type_name == "argument"]
        usage = " ".join([path, *((param.name or "").upper() for param in arguments)])
        print(f"## `{usage}`\n\n{(inner.help or '').strip()}\n")
        for param in inner.params:
            text = vars(param).get("help") or ""
            written = [(param.name or "").upper()] if param in arguments else [*param.opts, *param.secondary_opts]
            print(f"- {', '.join(f'`{word}`' for word in written)}: {text}".rstrip(": "))
        print()


if __name__ == "__main__":
    main()
