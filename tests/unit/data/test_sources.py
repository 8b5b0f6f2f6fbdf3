"""Folders and listings of videos: what is found, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.data.sources import list_sources


def folder_of(root: Path, **captions: str | None) -> Path:
    """A folder with a (fake) mp4 for each name, and a caption beside it unless that is None."""
    folder = root / "videos"
    for name, caption in captions.items():
        path = folder / f"{name.replace('__', '/')}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0")
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder


def test_a_folder_takes_captions_from_files_beside_the_videos(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, b="  a b\n", a="an \u00e4", sub__c="deep")
    (folder / ".hidden.mp4").write_bytes(b"")
    (folder / "notes.md").write_text("no video")
    found = list_sources(folder)
    assert [(video.id, video.caption) for video in found] == [("a", "an \u00e4"), ("b", "a b"), ("sub/c", "deep")]
    assert found[2].path == folder / "sub" / "c.mp4"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_folder_takes_captions_from_one_listing_in_it(tmp_path: Path, form: str) -> None:
    folder = folder_of(tmp_path, a=None, b=None)
    rows = [{"video": "a.mp4", "caption": 'says "hi", twice'}, {"video": "b.mp4", "caption": "two\nlines"}]
    if form == "csv":
        text = 'video,caption\r\na.mp4,"says ""hi"", twice"\r\nb.mp4,"two\nlines"\r\n'
    else:
        text = "\r\n".join(json.dumps(row) for row in rows)
    (folder / f"captions.{form}").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [video.caption for video in list_sources(folder)] == [row["caption"] for row in rows]


def test_a_listing_may_name_ids_and_splits(tmp_path: Path) -> None:
    listing = tmp_path / "videos.csv"
    listing.write_text("id,video,caption,split\nx,clips/a.mp4,one,held_out\n,/abs/b.webm,two,\n")
    first, second = list_sources(listing)
    assert (first.id, first.path, first.split) == ("/abs/b", Path("/abs/b.webm"), None)
    assert (second.id, second.path, second.split) == ("x", tmp_path / "clips/a.mp4", "held_out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"video": "a.mp4"}', r"videos.jsonl:1: 'caption' is missing for a.mp4"),
        ('{"video": "a.mp4", "caption": " "}', r":1: 'caption' is missing for a.mp4"),
        ('{"caption": "x"}', r":1: 'video' is missing"),
        ('{"video": "a.mp4", "caption": 3}', r":1: 'caption' is text, not 3"),
        ('{"video": "a.mp4", "caption": "x", "fps": 8}', r":1: unknown key 'fps'"),
        ('{"video": "a.mp4", "caption": "x", "split": "test"}', r":1: 'split' is one of train, validation, held_out"),
        ('\n{"video": ', r":2: not JSON"),
        ("[1]", r":1: not a JSON object"),
        ("\n", r"lists no videos"),
        (
            '{"video": "a.mp4", "caption": "x"}\n{"video": "a.mov", "caption": "y"}',
            r"duplicate id 'a': a.mp4 and a.mov; rename one, or give it another id",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    listing = tmp_path / "videos.jsonl"
    listing.write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        list_sources(listing)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,caption\na.mp4\n", r"videos.csv:2: has another number of columns"),
        ("video,caption\na.mp4,x,y\n", r":2: has another number of columns"),
        ('video,caption\na.mp4,"x\n', r"not CSV"),
        ("video,text\na.mp4,x\n", r":2: unknown key 'text'"),
        ("video,caption\na.mp4,\n", r":2: 'caption' is missing for a.mp4"),
    ],
)
def test_csv_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    listing = tmp_path / "videos.csv"
    listing.write_text(text)
    with pytest.raises(BadInput, match=message):
        list_sources(listing)


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent: no such folder or file"):
        list_sources(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match=r"empty holds no videos"):
        list_sources(empty)
    with pytest.raises(BadInput, match=r"b\.mp4 has no caption: put it in b\.txt"):
        list_sources(folder_of(tmp_path / "one", a="x", b=None))
    with pytest.raises(BadInput, match=r"a\.txt is empty"):
        list_sources(folder_of(tmp_path / "two", a="\n"))
    listed = folder_of(tmp_path / "three", a=None, b=None)
    (listed / "captions.csv").write_text("video,caption\na.mp4,x\n")
    with pytest.raises(BadInput, match=r"b\.mp4 has no caption: add a row for it to captions\.csv"):
        list_sources(listed)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"video,caption\n\xff\xfe")
    with pytest.raises(BadInput, match=r"binary\.csv: not UTF-8 text"):
        list_sources(binary)
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"")
    with pytest.raises(BadInput, match=r"neither a folder nor"):
        list_sources(picture)


def test_two_videos_that_share_one_caption_file_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a="x")
    (folder / "a.webm").write_bytes(b"\0")
    with pytest.raises(BadInput, match=r"duplicate id 'a': a\.mp4 and a\.webm"):
        list_sources(folder)
