"""Options that several verbs share, so that they read and behave the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ProjectOption = Annotated[
    Path | None, typer.Option("--project", help="Project folder; the current one or a parent if not given.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="One setting; may be repeated.")]
PairNameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the set of pairs: pairs/NAME.")]
ModelOption = Annotated[str, typer.Option("--model", help="Model folder, or 'tiny' for the one that is shipped.")]
AllowStaleOption = Annotated[bool, typer.Option("--allow-stale", help="Use inputs that have changed upstream.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Estimate time, disk and memory; write nothing.")]
