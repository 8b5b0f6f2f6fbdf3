"""The tables of labels.db, as the newest migration leaves them. Types are those that SQLite and PostgreSQL share.

A label is an appended row: nothing here is ever updated, and triggers (see `migrations/`) refuse it. What has been
judged, how often annotators agree and what is preferred are functions over rows, so no counter is stored.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

judgements: Final = Table(
    "judgements",
    metadata,
    # the order in which answers came in: the last answer of an annotator to the same question is the one that counts
    Column("number", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),  # the idempotency key: sending a row twice stores it once
    Column("pair_id", Text, nullable=False),
    Column("pair_hash", String(64), nullable=False),  # the pair as it was seen; a pair made anew is another pair
    Column("annotator", Text, nullable=False),
    Column("segment", Integer),  # NULL: an answer about the whole clip
    Column("start_frame", Integer, nullable=False),
    Column("stop_frame", Integer, nullable=False),
    Column("answer", String(8), nullable=False),
    Column("confidence", Float(53)),
    Column("score_a", Float(53)),
    Column("score_b", Float(53)),
    Column("left", String(1), nullable=False),  # which clip was shown on the left
    Column("duration_ms", Integer),
    Column("replays", Integer, nullable=False),
    Column("instructions", Text, nullable=False),
    Column("tool_version", Text, nullable=False),
    Column("created_at", Text, nullable=False),  # ISO 8601 with its offset, as the judge wrote it
    Column("dimension", Text),  # a question beside the main one; NULL: the main one, of which preferences are made
    CheckConstraint("answer IN ('a', 'b', 'tie', 'skip')", name="answer"),
    CheckConstraint("\"left\" IN ('a', 'b')", name="left"),
    CheckConstraint("start_frame >= 0 AND stop_frame > start_frame", name="range"),
    CheckConstraint("confidence IS NULL OR (confidence >= 0 AND confidence <= 1)", name="confidence"),
    Index("ix_judgements_pair_hash", "pair_hash"),
)

# The studio. What people did is appended, like judgements; who they are and what they hold at the moment changes.

studies: Final = Table(  # append-only: another version is another row
    "studies",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("pairs", Text, nullable=False),
    Column("settings", Text, nullable=False),  # JSON
    Column("created_at", Text, nullable=False),
    UniqueConstraint("name", "version", name="uq_studies_name"),
)

study_items: Final = Table(  # append-only
    "study_items",
    metadata,
    Column("id", String(64), primary_key=True),  # opaque, as is the name of the video
    Column("study", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    Column("pair_id", Text, nullable=False),
    Column("pair_hash", String(64), nullable=False),
    Column("side", String(1)),  # of a study that scores single clips; NULL: the pair
    Column("media", String(64), nullable=False, unique=True),
    Column("flipped", Boolean, nullable=False),  # whether b stands left of a in the video that is sent
    Column("gold", Text),  # JSON: the known labels, +1 where a is better; NULL: not known
    Column("copy", String(16)),  # "frozen": the clip `side` against its first frame held still; NULL: as generated
    UniqueConstraint("study", "position", name="uq_study_items_study"),
)

people: Final = Table(
    "people",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("token_sha256", String(64), nullable=False),
    Column("session_key", String(64), nullable=False),  # a new one ends every session
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Text, nullable=False),
)

assignments: Final = Table(
    "assignments",
    metadata,
    Column("id", String(64), primary_key=True),  # opaque: all that a browser knows of an item
    Column("study", String(64), nullable=False),
    Column("item", String(64), nullable=False),
    Column("person", String(64), nullable=False),
    Column("number", Integer, nullable=False),  # the person's first, second, ... in this study
    Column("kind", String(8), nullable=False),
    Column("left", String(1), nullable=False),  # which clip is shown on the left
    Column("state", String(8), nullable=False),
    Column("leased_until", Float(53), nullable=False),  # seconds since 1970; after that, others may have the place
    CheckConstraint("kind IN ('plain', 'gold', 'repeat')", name="kind"),
    CheckConstraint("\"left\" IN ('a', 'b')", name="left"),
    CheckConstraint("state IN ('open', 'done', 'skipped')", name="state"),
    UniqueConstraint("study", "person", "number", name="uq_assignments_study"),
    Index("ix_assignments_item", "study", "item"),
)

saves: Final = Table(  # append-only: everything that anybody chose, in the order in which it arrived
    "saves",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),  # the browser's idempotency key
    Column("study", String(64), nullable=False),
    Column("study_version", Integer, nullable=False),
    Column("assignment", String(64), nullable=False),
    Column("person", String(64), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("payload", Text, nullable=False),  # JSON, in terms of left and right, as it was sent
    Column("payload_sha256", String(64), nullable=False),
    Column("created_at", Text, nullable=False),
    CheckConstraint("kind IN ('draft', 'submit', 'skip')", name="kind"),
    Index("ix_saves_assignment", "assignment"),
    Index("ix_saves_study", "study", "kind"),
)

studio_keys: Final = Table(  # what signs sessions and draws sides: made once, by the first start
    "studio_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", String(128), nullable=False),
)
