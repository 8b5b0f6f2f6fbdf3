"""Answers to questions beside the main one, and items that show a clip beside an altered copy of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds two columns; what was stored before has answered the main question, about pairs as they are."""
    op.add_column("judgements", sa.Column("dimension", sa.Text))
    op.add_column("study_items", sa.Column("copy", sa.String(16)))


def downgrade() -> None:
    """Refused: labels are not dropped by a tool."""
    raise NotImplementedError("an older densedpo would take answers to other questions for labels; restore a backup")
