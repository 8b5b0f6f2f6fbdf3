"""The append-only table of judgements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQLITE = """
CREATE TRIGGER judgements_refuse_{verb} BEFORE {verb} ON judgements
BEGIN SELECT RAISE(ABORT, 'judgements are append-only: {verb} refused'); END
"""
_POSTGRESQL_FUNCTION = """
CREATE FUNCTION judgements_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN RAISE EXCEPTION USING MESSAGE = 'judgements are append-only: ' || TG_OP || ' refused'; END
$body$
"""
_POSTGRESQL_TRIGGER = """
CREATE TRIGGER judgements_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON judgements
FOR EACH STATEMENT EXECUTE FUNCTION judgements_are_append_only()
"""


def upgrade() -> None:
    """Creates the table, its index and the triggers that refuse UPDATE and DELETE."""
    op.create_table(
        "judgements",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("pair_id", sa.Text, nullable=False),
        sa.Column("pair_hash", sa.String(64), nullable=False),
        sa.Column("annotator", sa.Text, nullable=False),
        sa.Column("segment", sa.Integer),
        sa.Column("start_frame", sa.Integer, nullable=False),
        sa.Column("stop_frame", sa.Integer, nullable=False),
        sa.Column("answer", sa.String(8), nullable=False),
        sa.Column("confidence", sa.Float(53)),
        sa.Column("score_a", sa.Float(53)),
        sa.Column("score_b", sa.Float(53)),
        sa.Column("left", sa.String(1), nullable=False),
        sa.Column("duration_ms", sa.Integer),
        sa.Column("replays", sa.Integer, nullable=False),
        sa.Column("instructions", sa.Text, nullable=False),
        sa.Column("tool_version", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_judgements"),
        sa.UniqueConstraint("id", name="uq_judgements_id"),
        sa.CheckConstraint("answer IN ('a', 'b', 'tie', 'skip')", name="answer"),
        sa.CheckConstraint("\"left\" IN ('a', 'b')", name="left"),
        sa.CheckConstraint("start_frame >= 0 AND stop_frame > start_frame", name="range"),
        sa.CheckConstraint("confidence IS NULL OR (confidence >= 0 AND confidence <= 1)", name="confidence"),
    )
    op.create_index("ix_judgements_pair_hash", "judgements", ["pair_hash"])
    match op.get_context().dialect.name:
        case "sqlite":
            for verb in ("UPDATE", "DELETE"):
                op.execute(_SQLITE.format(verb=verb))
        case "postgresql":
            op.execute(_POSTGRESQL_FUNCTION)
            op.execute(_POSTGRESQL_TRIGGER)
        case other:
            raise ValueError(f"labels live in SQLite or PostgreSQL, not in {other}")


def downgrade() -> None:
    """Refused: there is no schema before this one, and labels are not dropped by a tool."""
    raise NotImplementedError("labels.db is not downgraded; restore a backup instead")
