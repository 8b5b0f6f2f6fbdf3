"""What other studies take from the paper's table: its intervals, and what commands of studies share."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "headline"))
from claims import MIN_SEEDS, difference_of, direction
from command import Run, at_once, made, open_project, run_command
from table import by_prompt, cell, difference_row, estimate_row

__all__ = [
    "MIN_SEEDS",
    "Run",
    "at_once",
    "by_prompt",
    "cell",
    "difference_of",
    "difference_row",
    "direction",
    "estimate_row",
    "made",
    "open_project",
    "run_command",
]
