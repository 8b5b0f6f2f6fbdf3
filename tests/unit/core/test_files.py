"""Files that survive a full disk, a cut and a second writer."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.files import append_jsonl, naming_disk_errors, repair_jsonl, write_atomic, writing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_second_writer_is_refused_and_the_first_frees_the_folder(tmp_path: Path) -> None:
    with writing(tmp_path / "runs"):
        with pytest.raises(BadInput, match=r"runs is being written by another process"), writing(tmp_path / "runs"):
            pass
        code = (
            "from pathlib import Path\nfrom densedpo.core.files import writing\n"
            f"with writing(Path({str(tmp_path)!r}) / 'runs'): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "is being written by another process" in other.stderr
    with writing(tmp_path / "runs"):
        pass


def test_a_killed_writer_frees_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom densedpo.core.files import writing\n"
        f"with writing(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with writing(tmp_path):
        pass


def test_a_torn_row_is_dropped_and_whole_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"id": 1})
    append_jsonl(path, {"id": 2})
    whole = path.read_bytes()
    for cut in range(len(whole) - 8, len(whole)):
        path.write_bytes(whole[:cut])
        dropped = repair_jsonl(path)
        assert path.read_bytes() == whole[: len(whole) // 2]
        assert dropped == cut - len(whole) // 2
    assert repair_jsonl(path) == 0
    assert repair_jsonl(tmp_path / "missing.jsonl") == 0


def test_rows_that_were_appended_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    code = (
        "import itertools\nfrom pathlib import Path\nfrom densedpo.core.files import append_jsonl\n"
        f"for i in itertools.count():\n    append_jsonl(Path({str(path)!r}), {{'id': i}})\n    print(i, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 20:
            pass
        time.sleep(0.05)
        writer.kill()
        acknowledged = [int(line) for line in writer.stdout.read().split()]
    repair_jsonl(path)
    kept = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert kept == list(range(len(kept)))
    assert len(kept) > max([20, *acknowledged])


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    """The kernel's own limit on the size of a file stands in for the disk; it fails in the middle of a row."""
    code = f"""
import resource, signal
from pathlib import Path
from densedpo.core.files import append_jsonl, write_atomic
from densedpo.core.errors import BadInput
path, rows = Path({str(tmp_path)!r}) / "report.json", Path({str(tmp_path)!r}) / "rows.jsonl"
write_atomic(path, "old"); append_jsonl(rows, {{"id": 1}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
for write in (lambda: write_atomic(path, "x" * 1000), lambda: append_jsonl(rows, {{"id": "y" * 1000}})):
    try:
        write()
    except BadInput as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("disk full while writing") and "report.json; nothing was lost" in first
    assert second.startswith("disk full while writing") and "rows.jsonl; nothing was lost" in second
    assert (tmp_path / "report.json").read_text() == "old"
    assert (tmp_path / "rows.jsonl").read_text() == '{"id": 1}\n'
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.json", "rows.jsonl"]


def test_other_faults_of_the_disk_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="disk full"), naming_disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(BadInput, match="not allowed"), naming_disk_errors(tmp_path):
        raise OSError(errno.EROFS, "read-only")
    with pytest.raises(OSError, match="I/O"), naming_disk_errors(tmp_path):
        raise OSError(errno.EIO, "I/O")
