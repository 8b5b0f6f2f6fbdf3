"""The project folder: names, stamps and staleness."""

from __future__ import annotations

from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.workspace import (
    Project,
    append_jsonl,
    find_project,
    init_project,
    read_stamp,
    require_fresh,
    stale_inputs,
    stamp_path,
    write_atomic,
    write_stamp,
)


@pytest.fixture
def made(tmp_path: Path) -> Project:
    """A project with clips, pairs made from them and preferences made from the pairs."""
    project = init_project(tmp_path / "mine")
    write_atomic(project.clips / "clips.jsonl", "{}\n")
    write_atomic(project.clips / "prompts.jsonl", "{}\n")
    write_stamp(project.clips, [], project)
    write_atomic(project.pairs("p") / "pairs.jsonl", "{}\n")
    write_stamp(project.pairs("p"), [project.clips], project)
    write_atomic(project.preferences("q"), "{}\n")
    write_stamp(project.preferences("q"), [project.pairs("p")], project)
    return project


def test_a_project_is_found_from_inside(tmp_path: Path) -> None:
    project = init_project(tmp_path / "mine")
    inside = project.root / "pairs" / "deep"
    inside.mkdir(parents=True)
    assert find_project(inside) == project
    with pytest.raises(BadInput, match="densedpo init"):
        find_project(tmp_path)
    with pytest.raises(BadInput, match="is a project already"):
        init_project(project.root)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        init_project(tmp_path / "file")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "A", "-x", ".hidden", "a b", "a\n", "\u00fc"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    project = Project(root=tmp_path)
    for place in (project.pairs, project.preferences, project.run, project.report):
        with pytest.raises(BadInput, match="cannot name an artefact"):
            place(name)


def test_what_is_untouched_is_fresh(made: Project) -> None:
    assert [made.relative(path) for path in made.artefacts()] == ["clips", "pairs/p", "preferences/q.jsonl"]
    for artefact in made.artefacts():
        assert stale_inputs(artefact, made) == []
        require_fresh(artefact, made)
    stamp = read_stamp(made.pairs("p"))
    assert stamp is not None and stamp.stage == "generate" and list(stamp.inputs) == ["clips"]


def test_a_change_makes_everything_below_it_stale(made: Project) -> None:
    append_jsonl(made.clips / "clips.jsonl", {"id": "new"})
    assert stale_inputs(made.clips, made) == []
    assert stale_inputs(made.pairs("p"), made) == ["clips changed"]
    assert stale_inputs(made.preferences("q"), made) == ["clips changed"]
    with pytest.raises(BadInput, match=r"^pairs/p is stale: clips changed; make it again, or pass --allow-stale$"):
        require_fresh(made.pairs("p"), made)
    require_fresh(made.pairs("p"), made, allow_stale=True)


def test_a_video_that_is_only_rewritten_makes_nothing_stale(made: Project) -> None:
    write_atomic(made.clips / "videos" / "a.mp4", b"other bytes, same clip")
    assert stale_inputs(made.pairs("p"), made) == []


def test_a_missing_input_or_artefact_is_named(made: Project) -> None:
    (made.pairs("p") / "pairs.jsonl").unlink()
    assert stale_inputs(made.preferences("q"), made) == ["pairs/p changed"]
    with pytest.raises(BadInput, match=r"runs/none does not exist; make it with `densedpo learn`"):
        require_fresh(made.run("none"), made)


def test_a_garbled_stamp_is_named(made: Project) -> None:
    stamp_path(made.clips).write_text("{}")
    with pytest.raises(BadInput, match=r"stamp.json: key 'stage'"):
        read_stamp(made.clips)
    stamp_path(made.clips).write_text("{")
    with pytest.raises(BadInput, match=r"stamp.json: not JSON"):
        read_stamp(made.clips)


def test_a_calibration_without_pairs_is_no_artefact(tmp_path: Path) -> None:
    project = init_project(tmp_path / "p")
    folder = project.pairs("first")
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / "calibration.json").write_text("{}", encoding="utf-8")
    assert project.artefacts() == []
    (folder / "pairs.jsonl").touch()
    assert project.artefacts() == [folder]
