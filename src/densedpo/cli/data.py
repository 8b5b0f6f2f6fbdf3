"""`densedpo data add`: videos, or the world, into a project's clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densedpo.cli.options import ConfigOption, ModelOption, ProjectOption, SetOption

if TYPE_CHECKING:
    from densedpo.data.summary import Summary

app = typer.Typer(no_args_is_help=True, help="Add clips to a project.")

SourceArgument = Annotated[
    str, typer.Argument(help="Folder of videos with captions, .jsonl or .csv that lists them, or 'world'.")
]


@app.callback()
def data() -> None:
    """Add clips to a project."""  # a callback keeps `add` a subcommand while it is the only one


@app.command()
def add(
    source: SourceArgument,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
) -> None:
    """Cut videos into clips of the model's size and encode them; what is there already is kept."""
    from densedpo.adapters import catalogue
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.data.config import DataConfig

    loaded = load_config(DataConfig, config, settings)
    found = find_project(project)
    geometry = catalogue.geometry(model)
    if source == "world":
        from densedpo.data.world import add_world

        summary = add_world(found, geometry=geometry, config=loaded)
    else:
        from densedpo.data.ingest import add_videos

        summary = add_videos(found, Path(source), geometry=geometry, config=loaded)
    typer.echo(_report(summary))
    if loaded.encode_latents and summary.num_clips:
        from densedpo.data.latents import encode_clips

        count = encode_clips(found, catalogue.load(model), batch=loaded.latent_batch)
        typer.echo(f"latents: {count} encoded, {summary.num_clips - count} in the cache")
    if summary.num_clips == 0:
        from densedpo.core.errors import BadInput

        raise BadInput(f"no clip was made; the reasons are in {found.clips / 'skipped.jsonl'}")


def _report(summary: Summary) -> str:
    from densedpo.data.summary import SKIP_KINDS

    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    lines = [
        f"{summary.num_clips} clips of {summary.num_sources} sources ({splits})",
        f"cuts: {summary.num_cuts}; tails left over: {summary.num_tails} ({summary.tail_s:.1f} s)",
        f"clips looked at: {summary.num_examined}; with the last frame repeated: {summary.num_extended}",
        "skipped: " + "; ".join(f"{count} {SKIP_KINDS[kind]}" for kind, count in summary.skipped.items()),
    ]
    lines += [
        f"note: no clip is in {split}; set {split}_share, or give a `split` to a row of a listing"
        for split in ("validation", "held_out")
        if summary.num_clips and not summary.splits[split]
    ]
    return "\n".join(lines)
