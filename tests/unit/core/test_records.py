"""Records: rows go to disk and come back, and a bad row is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densedpo.core.errors import BadInput
from densedpo.core.records import Clip, Preference, Prompt, from_row, read_jsonl, to_row, write_jsonl

PROMPT = Prompt(id="p1", caption="a red circle", split="train", clip_id="c1", scene={"shape": "circle", "phase": 0.25})
PREFERENCE = Preference(
    pair_id="x", split="train", ranges=((0, 8), (8, 17)), labels=(1, 0), confidence=(0.9, 0.5), clip_label=1,
    num_judgements=3,
)  # fmt: skip


def test_records_come_back_equal(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [PROMPT, replace(PROMPT, id="p2", scene=None)])
    assert read_jsonl(tmp_path / "prompts.jsonl", Prompt) == [PROMPT, replace(PROMPT, id="p2", scene=None)]
    write_jsonl(tmp_path / "preferences.jsonl", [PREFERENCE])
    assert read_jsonl(tmp_path / "preferences.jsonl", Preference) == [PREFERENCE]


@given(caption=st.text(st.characters(codec="utf-8")))
def test_any_caption_survives_a_row(caption: str) -> None:
    prompt = replace(PROMPT, caption=caption)
    assert from_row(Prompt, json.loads(json.dumps(to_row(prompt))), "row") == prompt


@given(caption=st.text(st.characters(codec="utf-8")))
def test_any_caption_survives_a_file(tmp_path_factory: pytest.TempPathFactory, caption: str) -> None:
    """Above all the line separators of Unicode, which are part of a caption and end no row."""
    path = tmp_path_factory.mktemp("rows") / "prompts.jsonl"
    write_jsonl(path, [replace(PROMPT, caption=caption)])
    assert [prompt.caption for prompt in read_jsonl(path, Prompt)] == [caption]


def test_files_from_other_tools_are_read(tmp_path: Path) -> None:
    """A byte order mark, CRLF and blank lines are no faults."""
    path = tmp_path / "prompts.jsonl"
    row = json.dumps(to_row(PROMPT))
    path.write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\r\n\r\n" + row.replace("p1", "p2").encode())
    assert [prompt.id for prompt in read_jsonl(path, Prompt)] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": 3}, "'caption'"),
        ({"captoin": "x"}, "'captoin': unknown key; the keys are id, caption"),
        ({"clip_id": 1.5}, "'clip_id'"),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_key(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(to_row(PROMPT)) + "\n" + json.dumps({**to_row(PROMPT), "id": "p2", **change}) + "\n")
    with pytest.raises(BadInput, match=rf"prompts.jsonl:2: key {message}"):
        read_jsonl(path, Prompt)


def test_a_missing_key_is_named() -> None:
    row = to_row(PROMPT)
    del row["caption"]
    with pytest.raises(BadInput, match=r"^here: key 'caption': "):
        from_row(Prompt, row, "here")


def test_numbers_are_not_made_from_text_nor_from_nan(tmp_path: Path) -> None:
    clip = Clip(
        id="c", source="s", split="train", caption="x", video="v.mp4", num_frames=5, fps=8.0, height=64, width=64,
        pixel_scale=2, content="0", start_s=0.0,
    )  # fmt: skip
    with pytest.raises(BadInput, match="'num_frames'"):
        from_row(Clip, {**to_row(clip), "num_frames": "5"}, "row")
    path = tmp_path / "clips.jsonl"
    path.write_text(json.dumps({**to_row(clip), "fps": float("nan")}))
    with pytest.raises(BadInput, match="'fps'"):
        read_jsonl(path, Clip)


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, [PROMPT, replace(PROMPT, id="p2"), PROMPT])
    with pytest.raises(BadInput, match=r"prompts.jsonl:3: key 'id': 'p1' is already in row 1"):
        read_jsonl(path, Prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [1]}, "1 labels for 2 ranges"),
        ({"labels": [1, 2]}, "not 2"),
        ({"labels": [1, 0.5]}, "'labels.1'"),
        ({"confidence": [1.0]}, "1 confidences for 2 ranges"),
        ({"clip_label": -2}, "not -2"),
        ({"answered": [True]}, "1 values of answered for 2 ranges"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_row(Preference, {**to_row(PREFERENCE), **change}, "row")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{not json}\n", "rows.jsonl:1: "), (b"\xff\xfe\n", "not UTF-8"), (b"[1]\n", "rows.jsonl:1: ")],
)
def test_what_is_no_jsonl_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_jsonl(path, Prompt)
    with pytest.raises(BadInput, match="no such file"):
        read_jsonl(tmp_path / "missing.jsonl", Prompt)
