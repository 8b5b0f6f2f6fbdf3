"""`densedpo judge reward | http`: judges that score each clip by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from densedpo.cli.judging import PairsArgument, run_judge
from densedpo.cli.options import AllowStaleOption, ConfigOption, ProjectOption, SetOption


def reward(
    pairs: PairsArgument,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Judge any pairs by the shipped video-quality network."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.reward.judge import RewardConfig, RewardJudge

    settings = load_config(RewardConfig, config, set_)
    found = find_project(project)
    run_judge(RewardJudge(settings), found, pairs, settings.segment_seconds, allow_stale=allow_stale)


def http(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the scorer, such as http://127.0.0.1:8041/.")],
    pairs: PairsArgument,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Judge any pairs by a scorer that answers over HTTP."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.reward.http import HttpConfig, HttpJudge

    settings = load_config(HttpConfig, config, set_)
    found = find_project(project)
    run_judge(HttpJudge(url, settings), found, pairs, settings.segment_seconds, allow_stale=allow_stale)
