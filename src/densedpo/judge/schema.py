"""The tables of labels.db, as the newest migration leaves them. Types are those that SQLite and PostgreSQL share.

A label is an appended row: nothing here is ever updated, and triggers (see `migrations/`) refuse it. What has been
judged, how often annotators agree and what is preferred are functions over rows, so no counter is stored.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
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
    CheckConstraint("answer IN ('a', 'b', 'tie', 'skip')", name="answer"),
    CheckConstraint("\"left\" IN ('a', 'b')", name="left"),
    CheckConstraint("start_frame >= 0 AND stop_frame > start_frame", name="range"),
    CheckConstraint("confidence IS NULL OR (confidence >= 0 AND confidence <= 1)", name="confidence"),
    Index("ix_judgements_pair_hash", "pair_hash"),
)
