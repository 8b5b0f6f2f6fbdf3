"""The wire against a real server: `transformers serve` with a tiny random LLaVA that the test makes itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.judge.protocol import PairClips
from densedpo.judge.vlm.config import VlmConfig
from densedpo.judge.vlm.judge import VlmJudge

pytestmark = pytest.mark.slow
START_S = 240


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of about 140 thousand random weights that reads bytes and images of 32x32."""
    from tiny_llava import save_tiny_llava

    folder = tmp_path_factory.mktemp("llava") / "tiny"
    save_tiny_llava(folder)
    return folder


@pytest.fixture(scope="module")
def base_url(llava: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = llava.parent / "home"
    (home / "hub").mkdir(parents=True)
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = (llava.parent / "serve.log").open("wb")
    command = [
        sys.executable, "-c", "from transformers.cli.transformers import main; main()",
        "serve", str(llava), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu",
    ]  # fmt: skip
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_up(server, f"http://127.0.0.1:{port}/health", llava.parent / "serve.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def _wait_until_up(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"transformers serve was not up after {START_S} s: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
def ask(base_url: str, llava: Path, tmp_path: Path) -> Callable[..., VlmJudge]:
    def make(**changes: object) -> VlmJudge:
        settings = {"base_url": base_url, "model": str(llava), "key_env": "", "min_side": 32, "deadline_s": 120.0}
        return VlmJudge(VlmConfig(**{**settings, **changes}), key="", folder=tmp_path / "judges")

    return make


def test_probabilities_come_from_systemone(ask: Callable[..., VlmJudge], clips: PairClips) -> None:
    """A random model's words mean nothing, but they are well formed, weighed, counted and kept."""
    with ask(api="systemone") as judge:
        answers = judge.judge(clips, ((0, 2), (2, 4)))
    for answer in answers:
        assert answer.failure is None
        assert answer.score_a is not None
        assert answer.score_b is not None
        assert 0 < answer.score_a + answer.score_b < 1
        assert answer.cost.input_tokens > 0
    with ask(api="systemone", max_requests=4) as judge:
        assert [again.answer for again in judge.judge(clips, ((0, 2), (2, 4)))] == [answer.answer for answer in answers]
        assert judge.spending.this_run.num_requests == 0


def test_words_that_are_no_answer_are_typed_failures(ask: Callable[..., VlmJudge], clips: PairClips) -> None:
    """This server ignores the schema that it is asked for, and random weights write no JSON."""
    with ask(max_output_tokens=8, concurrency=1) as judge:
        answer = judge.judge(clips, ((0, 2),))[0]
    assert answer.failure is not None
    assert answer.failure.kind in ("malformed", "truncated", "empty")
    assert (answer.cost.num_requests, answer.cost.input_tokens > 0) == (2, True)


def test_what_the_server_says_of_another_model_is_passed_on(ask: Callable[..., VlmJudge], clips: PairClips) -> None:
    with ask(model="another") as judge, pytest.raises(BadInput, match="pinned"):
        judge.judge(clips, ((0, 2),))
