"""The label store: judgements, appended and never changed; a correction is a later answer to the same question.

What is judged by the oracle, by a model or by people in the studio (`judge.studies`) ends here, in one table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import URL, Connection, RowMapping, insert, select

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement, from_row
from densedpo.judge.database import BUSY_TIMEOUT_S, Database
from densedpo.judge.schema import judgements as table

_CHUNK: Final = 500  # values in one IN (...), well under every database's limit
# what an answer says; when and with which version of the tool it was sent may differ when a row is sent again
_MEANING: Final = (
    "pair_hash",
    "annotator",
    "segment",
    "start_frame",
    "stop_frame",
    "answer",
    "confidence",
    "left",
    "dimension",
)


class ConflictingAnswer(BadInput):
    """An id came again with another answer."""

    def __init__(self, stored: Mapping[str, object], sent: Mapping[str, object]) -> None:
        super().__init__(
            f"judgement {sent['id']} of pair {sent['pair_id']} by {sent['annotator']!r} is already stored with another "
            f"meaning (answer {stored['answer']}, now {sent['answer']}); use another id or annotator name"
        )
        self.judgement_id = str(sent["id"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """How many rows of a batch were new, and how many were stored before."""

    num_new: int
    num_known: int


class LabelStore:
    """Judgements in a database. Safe to share between threads; use it as a context manager."""

    def __init__(self, database: Database) -> None:
        """On a database that is open; `open` opens one."""
        self.database: Final = database

    @classmethod
    def open(cls, where: Path | URL, *, create: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Opens labels.db or a PostgreSQL database, as `Database.open` does.

        Args:
            create: False refuses a file that does not exist.
            busy_timeout_s: how long a writer waits for another one.

        Raises:
            BadInput: missing, not a database, damaged, another program's, or written by a newer version.
        """
        if not create and isinstance(where, Path) and not where.is_file():
            raise BadInput(
                f"{where} does not exist: nothing is judged yet; `densedpo judge --help` lists judges, and "
                "`densedpo judge serve` asks people"
            )
        return cls(Database.open(where, busy_timeout_s=busy_timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()

    def append(self, judgements: Sequence[Judgement], pair_hashes: Mapping[str, str]) -> Appended:
        """Stores answers, all or none; rows whose id is already stored with the same meaning are left out.

        Args:
            pair_hashes: the hash of each pair that is judged, by pair id (`pairset.pair_hash`).

        Raises:
            ConflictingAnswer: an id is stored with another meaning; nothing was stored.
            BadInput: the database cannot be written; nothing was stored.
        """
        with self.database.writing() as connection:
            return append_rows(connection, judgements, pair_hashes)

    def known(self, ids: Iterable[str]) -> frozenset[str]:
        """Those of the ids that are stored: what a judge need not judge again."""
        with self.database.reading() as connection:
            return frozenset(row["id"] for row in _select(connection, "id", ids))

    def judgements(
        self,
        pair_hashes: Mapping[str, str],
        *,
        annotators: Collection[str] | None = None,
        dimension: str | None = None,
    ) -> tuple[Judgement, ...]:
        """The answers about these pairs as they were made, in the order in which they were stored.

        Args:
            pair_hashes: pair id to hash; answers about earlier pairs of the same ids are left out.
            annotators: only theirs; None for all.
            dimension: the question beside the main one that was answered, such as "motion"; None for the main one.
        """
        with self.database.reading() as connection:
            rows = _select(connection, "pair_hash", pair_hashes.values())
        wanted = [
            row
            for row in sorted(rows, key=lambda row: int(row["number"]))
            if pair_hashes.get(row["pair_id"]) == row["pair_hash"]
            and (annotators is None or row["annotator"] in annotators)
            and row["dimension"] == dimension
        ]
        keys = [field.name for field in fields(Judgement)]
        return tuple(
            from_row(Judgement, {key: row[key] for key in keys}, f"{self.database.name}:{row['number']}")
            for row in wanted
        )

    def dimensions(self, pair_hashes: Mapping[str, str]) -> tuple[str, ...]:
        """The questions beside the main one that anybody has answered about these pairs."""
        with self.database.reading() as connection:
            rows = _select(connection, "pair_hash", pair_hashes.values())
        return tuple(sorted({str(row["dimension"]) for row in rows if row["dimension"] is not None}))


def append_rows(connection: Connection, judgements: Sequence[Judgement], pair_hashes: Mapping[str, str]) -> Appended:
    """`LabelStore.append` inside a transaction that the caller holds (`Database.writing`).

    Raises:
        ConflictingAnswer: an id is stored with another meaning.
    """
    rows = [{**asdict(j), "pair_hash": pair_hashes[j.pair_id]} for j in judgements]
    known = {row["id"]: dict(row) for row in _select(connection, "id", (row["id"] for row in rows))}
    fresh = []
    for row in rows:
        stored = known.setdefault(row["id"], row)
        if stored is row:
            fresh.append(row)
        elif any(stored[key] != row[key] for key in _MEANING):
            raise ConflictingAnswer(stored, row)
    if fresh:
        connection.execute(insert(table), fresh)
    return Appended(num_new=len(fresh), num_known=len(rows) - len(fresh))


def _select(connection: Connection, column: str, values: Iterable[str]) -> list[RowMapping]:
    wanted = sorted(set(values))
    rows: list[RowMapping] = []
    for start in range(0, len(wanted), _CHUNK):
        query = select(table).where(table.c[column].in_(wanted[start : start + _CHUNK]))
        rows.extend(connection.execute(query).mappings())
    return rows
