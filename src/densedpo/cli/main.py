"""The `densedpo` command: finds the verb, runs it, and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 2 bad input, 75 cut short and resumable, 130 interrupted by the user. Verbs are imported when they
are asked for, and import their stage when they run, so that `densedpo --help` is instant and bad input is refused
before torch is loaded.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup

from densedpo import __version__
from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.progress import set_quiet

# verb -> where it is; the order is the order of work
VERBS: Final = {
    "init": "densedpo.cli.project:init",
    "doctor": "densedpo.cli.doctor:doctor",
    "status": "densedpo.cli.project:status",
    "demo": "densedpo.cli.demo:demo",
    "data": "densedpo.cli.data:app",
    "generate": "densedpo.cli.generate:app",
    "judge": "densedpo.cli.judge:app",
    "learn": "densedpo.cli.learn:app",
    "measure": "densedpo.cli.measure:app",
}
# module -> the extra that brings it
_EXTRA_OF: Final = {
    "torch": "train",
    "diffusers": "train",
    "transformers": "train",
    "peft": "train",
    "safetensors": "train",
    "jaxtyping": "train",
    "tensorboard": "train",
    "matplotlib": "report",
    "openai": "vlm",
    "tenacity": "vlm",
    "psycopg": "postgres",
    "pyarrow": "parquet",
}
_VERBOSITY: Final = ("-q", "--quiet", "-v", "--verbose")


class _Verbs(TyperGroup):
    """A group whose commands are imported only when they are named."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module_name, _, attribute = VERBS[cmd_name].partition(":")
        found = vars(importlib.import_module(module_name))[attribute]
        if isinstance(found, typer.Typer):
            verb = found
        else:
            verb = typer.Typer(add_completion=False)
            verb.command(cmd_name)(found)
        command = cast("TyperCommand | TyperGroup", typer.main.get_command(verb))
        command.name = cmd_name
        return command


def _say_version(value: bool) -> None:
    if value:
        typer.echo(f"densedpo {__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Verbs, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main(
    version: bool = typer.Option(False, "--version", callback=_say_version, is_eager=True, help="Print the version."),
    quiet: bool = typer.Option(False, "-q", "--quiet", help="No progress, errors only; may stand anywhere."),
    verbose: bool = typer.Option(False, "-v", "--verbose", help="Say more; may stand anywhere."),
) -> None:
    """Better video diffusion models from dense preferences: videos -> data -> generate -> judge -> learn -> measure."""
    set_quiet(quiet)
    if quiet or verbose:
        logging.getLogger("densedpo").setLevel(logging.ERROR if quiet else logging.DEBUG)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and leaves with its exit code."""
    logging.basicConfig(level=logging.WARNING, format="densedpo: %(message)s")
    logging.getLogger("densedpo").setLevel(logging.INFO)
    before = signal.signal(signal.SIGTERM, _stop)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _refuse_secrets(given)
        app(args=_verbosity_first(given), prog_name="densedpo")
    except BadInput as error:
        _leave(str(error), 2)
    except Interrupted as error:
        _leave(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        _leave(f"this needs {package}; pip install 'densedpo[{_EXTRA_OF[package]}]'", 2)
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(0)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Ends a verb as a machine asks: every stage survives a cut anywhere; training catches the signal for itself."""
    raise Interrupted(f"stopped by {signal.Signals(number).name}; run the same command again to go on")


def _refuse_secrets(arguments: Sequence[str]) -> None:
    if any("postgres" in argument and "://" in argument for argument in arguments):
        raise BadInput(
            "a database's URL does not belong on the command line, where others can read its password; put it into the "
            "environment as DENSEDPO_DATABASE_URL"
        )


def _verbosity_first(arguments: Sequence[str]) -> list[str]:
    """Moves -q and -v before the verb: they are written behind it as often as before it."""
    flags = [argument for argument in arguments if argument in _VERBOSITY]
    return flags + [argument for argument in arguments if argument not in _VERBOSITY]


def _leave(message: str, code: int) -> NoReturn:
    # names from files may hold line ends and terminal escapes; shown as text they do no harm
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in message)
    print(f"densedpo: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    run()
