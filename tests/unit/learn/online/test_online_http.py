"""Rewards from a scorer behind HTTP, through the whole loop: up, down when the run begins, and down in mid-round."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from densedpo.core.workspace import Project
from densedpo.judge.reward.worker import Sharpness, server
from online_runs import online_config, rounds, rows, train_online


class Scorer:
    """The worker that scorers run, on loopback, which can be told to be away: it then answers 503."""

    def __init__(self) -> None:
        self.away, self.num_questions, self.away_at = threading.Event(), 0, -1
        self._running = server(Sharpness(), host="127.0.0.1", port=0)
        whole, scorer = self._running.RequestHandlerClass, self

        class Moody(whole):  # type: ignore[misc, valid-type]
            def do_GET(self) -> None:  # noqa: N802
                if scorer.away.is_set():
                    self._reply(503, {"error": "away"})
                else:
                    super().do_GET()

            def do_POST(self) -> None:  # noqa: N802
                scorer.num_questions += 1
                if scorer.num_questions == scorer.away_at:
                    scorer.away.set()
                if scorer.away.is_set():
                    self.rfile.read(int(self.headers["Content-Length"]))
                    self._reply(503, {"error": "away"})
                else:
                    super().do_POST()

        self._running.RequestHandlerClass = Moody
        self._thread = threading.Thread(target=ThreadingHTTPServer.serve_forever, args=(self._running, 0.02))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._running.server_address[1]}/"

    def close(self) -> None:
        self._running.shutdown()
        self._thread.join()
        self._running.server_close()


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scorer]:
    monkeypatch.setattr("densedpo.judge.reward.http._PAUSES_S", (0.0, 0.0))
    found = Scorer()
    yield found
    found.close()


def test_a_scorer_that_goes_away_twice_changes_nothing_but_the_time(
    prompted: Project, toy_model_dir: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
):
    """A round has 4 pairs of rollouts and as many questions: it goes away before the first and at the sixth."""
    config = online_config(rewards=[{"judge": "http", "url": scorer.url}], num_rounds=2)
    undisturbed = train_online(prompted, "undisturbed", toy_model_dir, config)
    assert scorer.num_questions == 8
    folder, trained = prompted.run("disturbed"), []

    def come_back(seconds: float) -> None:
        is_begun = (folder / "metrics.jsonl").exists()
        trained.append(len(rows(folder)) if is_begun else 0)
        scorer.away.clear()

    monkeypatch.setattr("densedpo.learn.online.judging.sleep", come_back)
    scorer.num_questions, scorer.away_at = 0, 6
    scorer.away.set()
    train_online(prompted, "disturbed", toy_model_dir, config)
    assert trained == [0, 2]  # steps that had been taken while it was waited for: none, then those of the first round
    assert rows(folder) == rows(undisturbed)
    assert [row["num_pairs"] for row in rounds(folder)] == [2, 2]
    ours, theirs = (run / "adapter.safetensors" for run in (folder, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()
