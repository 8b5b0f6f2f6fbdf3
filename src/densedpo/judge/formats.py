"""Rows as JSONL, CSV and Parquet, and back: what other tools read and write.

In CSV a value that is no text or number is JSON, and text that a spreadsheet would take for a formula gets a quote in
front of it (CWE-1236), which reading takes away again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic

if TYPE_CHECKING:
    from pydantic import JsonValue

Row = Mapping[str, "JsonValue"]
FORMATS: Final = (".jsonl", ".csv", ".parquet")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "'")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows in the format that the file's name ends in.

    Raises:
        BadInput: no such format, the package that writes it is missing, or the disk refuses.
    """
    match _format(path):
        case ".jsonl":
            write_atomic(path, jsonl_text(rows))
        case ".csv":
            write_atomic(path, csv_text(rows))
        case _:
            write_atomic(path, parquet_bytes(rows))


def read_rows(path: Path) -> list[dict[str, JsonValue]]:
    """The rows of a CSV or Parquet file; what a row does not say is None.

    Raises:
        BadInput: it cannot be read; names the row where it is one.
    """
    match _format(path):
        case ".csv":
            return _read_csv(path)
        case ".parquet":
            return _read_parquet(path)
        case other:
            raise BadInput(f"{path}: {other} is read line by line")


def jsonl_text(rows: Sequence[Row]) -> str:
    """One JSON object in each line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_text(rows: Sequence[Row]) -> str:
    """A header and the rows; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # lines end in CR LF, so that a CR inside a text is quoted too
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) or value == "" or _is_json(value) else value
    return json.dumps(value, ensure_ascii=False)


def _is_json(text: str) -> bool:
    """Whether a text would be read back as a number, a list or the like."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _read_csv(path: Path) -> list[dict[str, JsonValue]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # as it is: line ends inside of texts are part of them
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
        rows = []
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise BadInput(f"{path}:{reader.line_num}: {len(cells)} cells for {len(columns)} columns")
            rows.append({column: _value(cell) if cell else None for column, cell in zip(columns, cells, strict=False)})
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: not CSV: {error}") from None
    return [row for row in rows if row]


def _value(cell: str) -> JsonValue:
    if cell.startswith("'"):
        return cell[1:]
    try:
        value: JsonValue = json.loads(cell, parse_constant=lambda word: word)
    except ValueError:
        return cell
    return value


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """A Parquet file; what differs from row to row in its shape is JSON in a text column, as in CSV."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([{key: _flat(value) for key, value in row.items()} for row in rows])
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def _flat(value: JsonValue) -> JsonValue:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _read_parquet(path: Path) -> list[dict[str, JsonValue]]:
    import pyarrow as pa
    from pyarrow import parquet

    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None
    return [{key: _unflat(value) for key, value in row.items()} for row in rows]


def _unflat(value: JsonValue) -> JsonValue:
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            found: JsonValue = json.loads(value)
        except ValueError:
            return value
        return found
    return value


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise BadInput(f"{path}: a file of rows ends in {', '.join(FORMATS)}")
    return suffix
