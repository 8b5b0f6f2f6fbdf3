"""The studio's tables: studies, their items, people, who holds what, and everything that was ever saved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

APPEND_ONLY = ("studies", "study_items", "saves")
_SQLITE = """
CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} are append-only: {verb} refused'); END
"""
_POSTGRESQL_FUNCTION = """
CREATE FUNCTION rows_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' are append-only: ' || TG_OP || ' refused'; END
$body$
"""
_POSTGRESQL_TRIGGER = """
CREATE TRIGGER {table}_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION rows_are_append_only()
"""


def upgrade() -> None:
    """Creates the tables, and the triggers on those whose rows never change."""
    _create_studies()
    _create_people()
    _create_saves()
    match op.get_context().dialect.name:
        case "sqlite":
            for table in APPEND_ONLY:
                for verb in ("UPDATE", "DELETE"):
                    op.execute(_SQLITE.format(table=table, verb=verb))
        case "postgresql":
            op.execute(_POSTGRESQL_FUNCTION)
            for table in APPEND_ONLY:
                op.execute(_POSTGRESQL_TRIGGER.format(table=table))
        case other:
            raise ValueError(f"labels live in SQLite or PostgreSQL, not in {other}")


def downgrade() -> None:
    """Refused: answers are not dropped by a tool."""
    raise NotImplementedError("labels.db is not downgraded; restore a backup instead")


def _number() -> sa.Column[int]:
    return sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False)


def _create_studies() -> None:
    op.create_table(
        "studies",
        _number(),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("pairs", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_studies"),
        sa.UniqueConstraint("name", "version", name="uq_studies_name"),
    )
    op.create_table(
        "study_items",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("study", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("pair_id", sa.Text, nullable=False),
        sa.Column("pair_hash", sa.String(64), nullable=False),
        sa.Column("side", sa.String(1)),
        sa.Column("media", sa.String(64), nullable=False),
        sa.Column("flipped", sa.Boolean, nullable=False),
        sa.Column("gold", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_study_items"),
        sa.UniqueConstraint("media", name="uq_study_items_media"),
        sa.UniqueConstraint("study", "position", name="uq_study_items_study"),
    )


def _create_people() -> None:
    op.create_table(
        "people",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("session_key", sa.String(64), nullable=False),
        sa.Column("is_admin", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_people"),
        sa.UniqueConstraint("name", name="uq_people_name"),
    )
    op.create_table(
        "studio_keys",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_studio_keys"),
    )


def _create_saves() -> None:
    op.create_table(
        "assignments",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("study", sa.String(64), nullable=False),
        sa.Column("item", sa.String(64), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("left", sa.String(1), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("leased_until", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_assignments"),
        sa.UniqueConstraint("study", "person", "number", name="uq_assignments_study"),
        sa.CheckConstraint("kind IN ('plain', 'gold', 'repeat')", name="kind"),
        sa.CheckConstraint("\"left\" IN ('a', 'b')", name="left"),
        sa.CheckConstraint("state IN ('open', 'done', 'skipped')", name="state"),
    )
    op.create_index("ix_assignments_item", "assignments", ["study", "item"])
    op.create_table(
        "saves",
        _number(),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("study", sa.String(64), nullable=False),
        sa.Column("study_version", sa.Integer, nullable=False),
        sa.Column("assignment", sa.String(64), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("payload_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_saves"),
        sa.UniqueConstraint("id", name="uq_saves_id"),
        sa.CheckConstraint("kind IN ('draft', 'submit', 'skip')", name="kind"),
    )
    op.create_index("ix_saves_assignment", "saves", ["assignment"])
    op.create_index("ix_saves_study", "saves", ["study", "kind"])
