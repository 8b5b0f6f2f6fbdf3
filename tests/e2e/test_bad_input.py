"""Bad input through the command line: one clear line, exit code 2, nothing lost.

| bad input | here | elsewhere |
|---|---|---|
| missing folder, empty folder, caption missing, duplicate id of a video | | e2e/test_real_videos_data |
| text named .mp4, truncated mp4, one-frame clip | the only sources | beside good ones: unit/data/test_ingest |
| unknown config key | every verb, --set and --config | unit/core/test_config |
| duplicate id of a pair | judge, learn | unit/core/test_records |
| label array of the wrong length | import, learn | unit/judge/test_exchange, unit/learn/test_inputs |
| preferences for pairs that do not exist | learn | unit/judge/test_preferences, unit/learn/test_inputs |
| a run folder made from other pairs | learn | other preferences, other settings: unit/learn/test_learn_cli |
| stale input | learn, measure run, compare | judge: unit/judge/test_preferences |
| a full disk | every verb that writes | unit/core/test_files, unit/judge/test_store |
| two writers at once | data, generate, measure | judge: unit/judge/test_preferences; learn: unit/learn/test_learn_cli |
| a pickle offered as weights | model, latents, adapter | unit/adapters/test_catalogue |
"""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from command_line import Done, densedpo, densedpo_process, settings
from densedpo.core.media import write_mp4
from densedpo.core.workspace import Project, content_hash, writing
from densedpo.judge.store import LabelStore

# a world of which each split has some; the seeds of two sets of pairs differ
CLIPS = settings(world__num_clips=16, validation_share=0.3)
PAIRS = settings(num_pairs=6, num_steps=2)
SECONDS = settings(segment_seconds=0.5)
MEASURED = settings(num_prompts=2, num_steps=2)
LEARN = settings(num_steps=2, batch_pairs=2, eval_every=2, eval_pairs=1, eval_draws=1, warmup_steps=0, lora_rank=2)
ADD = ("data", "add", "world", *CLIPS)
GUIDED = ("generate", "guided", "first", *PAIRS)
REFERENCE = ("judge", "reference", "first", *SECONDS, *settings(margin=0.0))
EXPORT = ("judge", "export", "first", "--pairs", "first", *SECONDS)
OFFLINE = ("learn", "offline", "first", "--pairs", "first", "--preferences", "first", *LEARN)
BASE = ("measure", "run", "base", *MEASURED)
TUNED = ("measure", "run", "tuned", "--run", "first", *MEASURED)
COMPARE = ("measure", "compare", "result", "base", "tuned")
TAKES_MODEL = {("data", "add"), ("generate", "guided"), ("learn", "offline"), ("measure", "run")}
# what a refused command may leave behind: locks, and what SQLite keeps beside an open database
NOT_CONTENT = (".lock", "labels.db-wal", "labels.db-shm")

Words = tuple[str, ...]
Files = dict[str, bytes]


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.trace,))


def run(project: Project, model: Path, words: Words, how: Callable[..., Done] = densedpo) -> Done:
    options: list[str | Path] = ["--project", project.root]
    if words[:2] in TAKES_MODEL and "--model" not in words:
        options += ["--model", model]
    return how(*words, *options)


def content(project: Project) -> Files:
    """Every file of a project."""
    paths = [path for path in project.root.rglob("*") if path.is_file() and path.name not in NOT_CONTENT]
    return {project.relative(path): path.read_bytes() for path in paths}


def assert_refused(done: Done, *words: str) -> None:
    """Exit code 2 and one line with these words in it."""
    assert done.code == 2, done
    lines = done.err.splitlines()
    assert len([line for line in lines if line.startswith("densedpo: ")]) == 1, done.err
    for word in words:
        assert word in lines[-1]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, toy_model_dir: Path) -> Project:
    """A project after all five stages."""
    project = Project(root=tmp_path_factory.mktemp("bad-input") / "project")
    assert densedpo("init", project.root).code == 0
    other = ("generate", "guided", "other", *PAIRS, *settings(seed=1))
    judged_other = ("judge", "reference", "other", *REFERENCE[3:])
    exported_other = ("judge", "export", "other", "--pairs", "other", *SECONDS)
    stages = (ADD, GUIDED, REFERENCE, EXPORT, other, judged_other, exported_other, OFFLINE, BASE, TUNED, COMPARE)
    for words in stages:
        done = run(project, toy_model_dir, words)
        assert done.code == 0, done.err
    return project


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    """A copy that a test may damage."""
    return Project(root=shutil.copytree(original.root, tmp_path / "project"))


def edit_row(path: Path, row: int, **changes: object) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[row] = json.dumps(json.loads(lines[row]) | changes)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def restamp(project: Project, *names: str) -> None:
    """Makes damaged inputs count as fresh, so that what is refused is the damage itself."""
    for name in names:
        path = project.root / name
        stamp = json.loads(path.read_text(encoding="utf-8"))
        stamp["inputs"] = {name: content_hash(project.root / name, project) for name in stamp["inputs"]}
        path.write_text(json.dumps(stamp), encoding="utf-8")


def test_sources_of_which_none_gives_a_clip(project: Project, tmp_path: Path, toy_model_dir: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    write_mp4(folder / "one-frame.mp4", rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8), fps=8)
    write_mp4(folder / "truncated.mp4", rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8), fps=8)
    data = (folder / "truncated.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "text.mp4").write_text("not a video")
    for video in folder.glob("*.mp4"):
        video.with_suffix(".txt").write_text("a caption")
    fresh = Project(root=tmp_path / "fresh")
    densedpo("init", fresh.root)
    assert_refused(run(fresh, toy_model_dir, ("data", "add", str(folder))), "no clip was made", "skipped.jsonl")
    rows = [json.loads(line) for line in (fresh.clips / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["id"]: row["kind"] for row in rows} == {
        "one-frame": "too_short",
        "text": "broken",
        "truncated": "broken",
    }
    # the same beside clips that are there already: these stay, and the rest is still listed
    before = content(project)
    done = run(project, toy_model_dir, ("data", "add", str(folder)))
    assert done.code == 0, done.err
    assert "2 cannot be decoded" in done.out
    kept = {name: data for name, data in content(project).items() if name.endswith((".mp4", ".safetensors"))}
    assert kept == {name: data for name, data in before.items() if name in kept}


VERBS: dict[str, Words] = {
    "data add": ADD,
    "generate guided": GUIDED,
    "generate independent": ("generate", "independent", "new"),
    "generate calibrate": ("generate", "calibrate", "new"),
    "judge oracle": ("judge", "oracle", "first"),
    "judge reference": REFERENCE,
    "judge export": EXPORT,
    "judge import": ("judge", "import", "labels.jsonl", "--pairs", "first"),
    "learn offline": OFFLINE,
    "measure run": BASE,
    "measure compare": COMPARE,
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_setting_that_does_not_exist(original: Project, tmp_path: Path, toy_model_dir: Path, verb: str) -> None:
    before = content(original)
    done = run(original, toy_model_dir, (*VERBS[verb], "--set", "no.such=1"))
    assert_refused(done, "--set no.such=1", "unknown key; the keys are")
    if "--config" in densedpo(*verb.split(), "--help").out:
        (tmp_path / "settings.toml").write_text("no_such = 1\n")
        done = run(original, toy_model_dir, (*VERBS[verb], "--config", str(tmp_path / "settings.toml")))
        assert_refused(done, "settings.toml", "'no_such'", "unknown key; the keys are")
    assert content(original) == before


def twin_pair(project: Project) -> None:
    path = project.pairs("first") / "pairs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[0]]), encoding="utf-8")
    restamp(project, "preferences/first.jsonl.stamp.json")


def short_labels(project: Project) -> None:
    edit_row(project.preferences("first"), 1, labels=[1])


def unknown_pair(project: Project) -> None:
    edit_row(project.preferences("first"), 1, pair_id="nobody")


def changed_caption(project: Project) -> None:
    edit_row(project.clips / "prompts.jsonl", 0, caption="another")


def changed_run(project: Project) -> None:
    changed_caption(project)
    restamp(project, "reports/base/stamp.json", "pairs/first/stamp.json")


def more_labels(project: Project) -> None:
    """Somebody else labels a pair after the export."""
    pair_id = json.loads((project.pairs("first") / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[0])["id"]
    path = project.root.parent / "somebody.jsonl"
    path.write_text(json.dumps({"pair_id": pair_id, "labels": [1, -1]}) + "\n", encoding="utf-8")
    done = densedpo("judge", "import", path, "--pairs", "first", *SECONDS, "--project", project.root)
    assert done.out == "2 answers stored, 0 were stored before\n"


def pickled_adapter(project: Project) -> None:
    (project.run("first") / "adapter.safetensors").write_bytes(pickle.dumps(Bomb(project.root / "unpickled")))


def pickled_latents(project: Project) -> None:
    for path in (project.clips / "latents").rglob("*.safetensors"):
        path.write_bytes(pickle.dumps(Bomb(project.root / "unpickled")))


def pickled_pair(project: Project) -> None:
    for path in (project.pairs("first") / "latents").iterdir():
        path.write_bytes(pickle.dumps(Bomb(project.root / "unpickled")))


def untouched(_: Project) -> None:
    pass


OTHER_PAIRS = ("learn", "offline", "first", "--pairs", "other", "--preferences", "other", *LEARN)
AGAIN = ("learn", "offline", "again", *OFFLINE[3:])


@pytest.mark.parametrize(
    ("damage", "words", "named"),
    [
        (twin_pair, REFERENCE, ("pairs.jsonl:7: key 'id'", "is already in row 1")),
        (twin_pair, AGAIN, ("pairs.jsonl:7: key 'id'", "is already in row 1")),
        (short_labels, AGAIN, ("first.jsonl:2", "1 labels for 2 ranges")),
        (unknown_pair, AGAIN, ("first.jsonl", "'nobody'", "pairs.jsonl")),
        (untouched, OTHER_PAIRS, ("runs/first holds another run", "inputs.pairs/other")),
        (changed_caption, AGAIN, ("pairs/first is stale: clips changed", "--allow-stale")),
        (changed_caption, TUNED, ("runs/first is stale: clips changed", "--allow-stale")),
        (changed_caption, COMPARE, ("reports/base is stale: clips changed", "--allow-stale")),
        (changed_run, COMPARE, ("reports/tuned is stale",)),
        (
            more_labels,
            AGAIN,
            ("first.jsonl is stale: labels of pairs/first changed (12 answers then, 14 now)", "export"),
        ),
        (pickled_adapter, ("measure", "run", "new", *TUNED[3:]), ("adapter.safetensors", "safetensors")),
        (pickled_latents, ("generate", "guided", "new", *PAIRS), (".safetensors", "data add")),
        (pickled_pair, AGAIN, (".safetensors", "not a readable safetensors file")),
    ],
    ids=lambda value: value.__name__ if callable(value) else " ".join(value[:2]),
)
def test_what_does_not_fit_is_refused_and_nothing_is_lost(
    project: Project, toy_model_dir: Path, damage: Callable[[Project], None], words: Words, named: Words
) -> None:
    damage(project)
    before = content(project)
    assert_refused(run(project, toy_model_dir, words), *named)
    assert not (project.root / "unpickled").exists()
    after = content(project)
    assert {name: after.get(name) for name in before} == before


def test_labels_of_the_wrong_length_or_for_other_pairs_are_not_imported(project: Project, tmp_path: Path) -> None:
    pair_id = json.loads((project.pairs("first") / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[0])["id"]
    path = tmp_path / "labels.jsonl"
    good = {"pair_id": pair_id, "labels": [1, -1]}
    for bad, named in (
        ({"pair_id": pair_id, "labels": [1, 0, 1]}, "3 values for the 2 segments"),
        ({"pair_id": "nobody", "labels": [1, 0]}, "there is no pair 'nobody'"),
    ):
        path.write_text(f"{json.dumps(bad)}\n{json.dumps(good)}\n", encoding="utf-8")
        done = densedpo("judge", "import", path, "--pairs", "first", *SECONDS, "--project", project.root)
        assert_refused(done, "labels.jsonl:1", named)
    more_labels(project)  # says that none of these was stored before


def test_status_tells_that_labels_changed_and_what_hangs_on_them(project: Project) -> None:
    def stale() -> dict[str, list[str]]:
        done = densedpo("status", "--json", "--project", project.root)
        assert done.code == 0, done.err
        return {row["path"]: row["stale"] for row in json.loads(done.out)["artefacts"] if row["state"] == "stale"}

    from_first = ("preferences/first.jsonl", "runs/first", "reports/result", "reports/tuned")
    assert stale() == {}
    more_labels(project)
    changed = "labels of pairs/first changed (12 answers then, 14 now)"
    assert stale() == {path: [changed] for path in from_first}
    project.labels_db.write_bytes(b"no database" * 100)
    assert set(stale()) == {*from_first, "preferences/other.jsonl"}
    project.labels_db.unlink()
    assert set(stale()) == {*from_first, "preferences/other.jsonl"}
    assert stale()["runs/first"] == ["labels.db is gone"]


@pytest.mark.parametrize(
    "words",
    [ADD, ("generate", "guided", "new", *PAIRS), AGAIN, ("measure", "run", "new", *MEASURED)],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_model_whose_weights_are_a_pickle(
    project: Project, toy_model_dir: Path, tmp_path: Path, words: Words
) -> None:
    model = Path(shutil.copytree(toy_model_dir, tmp_path / "model"))
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(pickle.dumps(Bomb(tmp_path / "unpickled")))
    before = content(project)
    assert_refused(run(project, model, words), "diffusion_pytorch_model.bin is a pickle", "safetensors")
    assert content(project) == before
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("clips", ADD),
        ("pairs/first", GUIDED),
        ("preferences", EXPORT),
        ("runs/first", OFFLINE),
        ("reports/base", BASE),
        ("reports/result", COMPARE),
    ],
)
def test_a_second_writer(project: Project, toy_model_dir: Path, folder: str, words: Words) -> None:
    before = content(project)
    with writing(project.root / folder):
        assert_refused(run(project, toy_model_dir, words), folder, "is being written by another process")
    assert content(project) == before


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """The kernel's own limit on the size of a file stands in for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """A stage that begins anew, for which the largest of its files of this name does not fit on the disk."""

    words: Words
    removed: Words
    too_large: str


FILLINGS = (
    Filling(words=ADD, removed=("clips",), too_large="*.mp4"),
    Filling(words=ADD, removed=("clips",), too_large="*.safetensors"),
    Filling(words=GUIDED, removed=("pairs/first",), too_large="*.mp4"),
    Filling(words=GUIDED, removed=("pairs/first",), too_large="guided*.safetensors"),
    Filling(
        words=EXPORT,
        removed=("preferences/first.jsonl", "preferences/first.jsonl.stamp.json"),
        too_large="first.jsonl",
    ),
    Filling(words=OFFLINE, removed=("runs/first",), too_large="state.safetensors"),
    # from the last checkpoint on, which is larger than the adapter
    Filling(
        words=OFFLINE,
        removed=("runs/first/adapter.safetensors", "runs/first/stamp.json"),
        too_large="adapter.safetensors",
    ),
    Filling(words=BASE, removed=("reports/base",), too_large="*.mp4"),
    Filling(words=COMPARE, removed=("reports/result",), too_large="index.html"),
)


def largest(project: Project, folder: str, pattern: str) -> int:
    return max(path.stat().st_size for path in (project.root / folder).rglob(pattern))


def folder_of(name: str) -> str:
    """The artefact's folder that a path lies in: `clips`, `preferences`, `runs/first`."""
    parts = name.split("/")
    return "/".join(parts[:1] if parts[0] in ("clips", "preferences") else parts[:2])


@pytest.mark.parametrize("filling", FILLINGS, ids=lambda filling: f"{' '.join(filling.words[:2])} {filling.too_large}")
def test_a_full_disk(project: Project, original: Project, toy_model_dir: Path, filling: Filling) -> None:
    """The stage says so and loses nothing; with room again the same command ends as if nothing had happened."""
    folder = folder_of(filling.removed[0])
    limit = largest(project, folder, filling.too_large) - 1
    for name in filling.removed:
        path = project.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = content(project)
    # held open: with fewer than 32 KiB of room SQLite cannot even begin to read, which is another test's subject
    with LabelStore.open(project.labels_db, create=False), files_up_to(limit):
        done = run(project, toy_model_dir, filling.words)
    assert_refused(done, folder, "nothing was lost, free space and rerun")
    left = content(project)
    assert {name: left.get(name) for name in before} == before
    assert not [name for name in left if name.endswith((".part", ".tmp")) or "/.tmp-" in name]
    again = run(project, toy_model_dir, filling.words)
    assert again.code == 0, again.err
    assert_same(made_in(project, folder), made_in(original, folder))


def made_in(project: Project, folder: str) -> Files:
    """What a stage made in its folder: without logs, and without what later stages cache beside clips and pairs."""
    apart = ("/tensorboard/", "/reference_cache/", "/captions/")
    found = {name: data for name, data in content(project).items() if name.startswith(folder)}
    return {name: data for name, data in found.items() if not any(part in name for part in apart)}


def assert_same(found: Files, expected: Files) -> None:
    """The same files; records are equal, latents to the tolerance that another cut into batches leaves."""
    assert set(found) == set(expected)
    for name, data in expected.items():
        if name.endswith(("clips.jsonl", "prompts.jsonl", "pairs.jsonl", "first.jsonl")):
            assert found[name] == data
        if name.endswith(".safetensors"):
            ours, theirs = load(found[name]), load(data)
            assert set(ours) == set(theirs)
            for key in theirs:
                np.testing.assert_allclose(ours[key], theirs[key], atol=1e-4, err_msg=f"{name} {key}")


def test_a_full_disk_in_a_process_of_its_own(project: Project, toy_model_dir: Path) -> None:
    """Exit code and stderr as a shell sees them; the old file is still there in full."""
    before = content(project)
    limit = largest(project, "preferences", "first.jsonl") - 1
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from densedpo.cli.main import run; run()"
    )

    def limited(*words: str | Path) -> Done:
        return densedpo_process(*words, program=program)

    with LabelStore.open(project.labels_db, create=False):
        assert_refused(run(project, toy_model_dir, EXPORT, limited), "preferences/first.jsonl", "disk full")
    assert content(project) == before
