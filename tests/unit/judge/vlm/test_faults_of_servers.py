"""What becomes of a server's faults: rows F77 and F78 of the list of faults, one test each."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from densedpo.core.errors import BadInput, Interrupted
from densedpo.judge.protocol import PairClips, SegmentAnswer
from densedpo.judge.vlm.judge import VlmJudge
from scripted_vlm import TIE, Json, Reply, Script, brighter, chat, error, scripted

NewJudge = Callable[..., VlmJudge]
ONE = ((0, 2),)  # one segment: two questions, one for each order


def ask(new_judge: NewJudge, script: Script, clips: PairClips, **changes: object) -> SegmentAnswer:
    with new_judge(script, **changes) as judge:
        return judge.judge(clips, ONE)[0]


def at_first(*bad: Reply) -> Callable[[Json, int], Reply]:
    """These replies to the first requests, then honest ones."""
    return lambda request, number: bad[number - 1] if number <= len(bad) else brighter(request)


@pytest.mark.parametrize(
    "bad",
    [
        error(408), error(409), error(429), error(500), error(503), Reply(reset=True),
        Reply(status=502, body="<html><h1>502 Bad Gateway</h1></html>"),
    ],
    ids=["408", "409", "429", "500", "503", "reset", "502 HTML"],
)  # fmt: skip
def test_f77_errors_that_pass_are_tried_again(bad: Reply, clips: PairClips, new_judge: NewJudge) -> None:
    with scripted(at_first(bad)) as script:
        answer = ask(new_judge, script, clips)
    assert (answer.answer, answer.cost.num_requests, len(script.requests)) == ("a", 3, 3)


def test_f77_attempts_end_and_do_not_multiply(clips: PairClips, new_judge: NewJudge) -> None:
    """Three attempts for each of two questions are six requests: the client's own retries are off."""
    with scripted(error(500)) as script:
        answer = ask(new_judge, script, clips, attempts=3)
    assert answer.answer == "skip"
    assert answer.failure is not None
    assert answer.failure.kind == "unavailable"
    assert len(script.requests) == 6


@pytest.mark.parametrize("as_date", [False, True])
def test_f77_retry_after_is_the_least_wait(as_date: bool, clips: PairClips, new_judge: NewJudge) -> None:
    """A date has whole seconds, so two of them are at least one."""
    wait = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if as_date else "0.5"
    with scripted(at_first(error(429, Retry_After=wait))) as script:
        started = time.monotonic()
        answer = ask(new_judge, script, clips)
    assert answer.answer == "a"
    assert time.monotonic() - started >= 0.5


def test_f77_a_wait_beyond_the_deadline_is_not_waited_for(clips: PairClips, new_judge: NewJudge) -> None:
    with scripted(error(429, Retry_After="3600")) as script:
        started = time.monotonic()
        answer = ask(new_judge, script, clips)
    assert answer.failure is not None
    assert "3600" in answer.failure.detail
    assert (len(script.requests), time.monotonic() - started < 30) == (2, True)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (error(429, "insufficient_quota"), "quota"),
        (error(402), "quota"),
        (error(401), "KEY"),
        (error(403), "KEY"),
        (error(404), "model"),
        (error(413), "frames_per_second"),
        (error(400), "json_schema=false"),
        (Reply(status=422, body={"detail": "Unexpected fields"}), "422: Unexpected fields"),
    ],
    ids=["429 quota", "402", "401", "403", "404", "413", "400", "422 of FastAPI"],
)
def test_f77_errors_that_stay_end_the_run(bad: Reply, said: str, clips: PairClips, new_judge: NewJudge) -> None:
    with scripted(bad) as script, pytest.raises(BadInput, match=said):
        ask(new_judge, script, clips, concurrency=1)
    assert len(script.requests) == 1


@pytest.mark.alone
@pytest.mark.parametrize(
    "slow", [Reply(delay_s=5), Reply(body=TIE, drip_s=1), Reply(delay_s=0.2, body=" " * 200, drip_s=0.05)]
)
def test_f77_slow_drips_end_at_the_deadline(slow: Reply, clips: PairClips, new_judge: NewJudge) -> None:
    with scripted(slow) as script:
        started = time.monotonic()
        answer = ask(new_judge, script, clips, deadline_s=0.6)
    assert answer.failure is not None
    assert answer.failure.kind == "deadline"
    assert time.monotonic() - started < 4.5


@pytest.mark.parametrize("api", ["chat", "systemone"])
def test_f77_a_reply_without_an_end_is_cut(api: str, clips: PairClips, new_judge: NewJudge) -> None:
    with scripted(Reply(endless=True)) as script:
        answer = ask(new_judge, script, clips, api=api)
    assert answer.failure is not None
    assert (answer.failure.kind, "bytes" in answer.failure.detail) == ("malformed", True)


def test_f77_an_untrusted_connection_is_not_tried_again(clips: PairClips, new_judge: NewJudge) -> None:
    """https to a server that speaks no TLS."""
    with scripted(brighter_always) as script:
        url = script.url.replace("http:", "https:")
        with pytest.raises(BadInput, match="trusted"), new_judge(script, base_url=url, concurrency=1) as judge:
            judge.judge(clips, ONE)


def test_f77_a_server_that_is_gone_ends_the_run_so_that_it_can_go_on(clips: PairClips, new_judge: NewJudge) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with (
        pytest.raises(Interrupted, match="run the same command again"),
        new_judge(None, base_url=url, attempts=2) as judge,
    ):
        judge.judge(clips, ((0, 1), (1, 2), (2, 3)))


def brighter_always(request: Json, _number: int) -> Reply:
    return brighter(request)


BAD_TEXTS = {
    "malformed JSON": '{"answer": "first"',
    "extra prose": 'Sure! {"answer": "first", "reason": "sharper"}',
    "prose behind": '{"answer": "first", "reason": "sharper"} I hope this helps.',
    "duplicate keys": '{"answer": "first", "answer": "second"}',
    "other language": '{"answer": "premier", "reason": "plus net"}',
    "other key": '{"reponse": "first"}',
    "added key": '{"answer": "first", "reason": "", "sure": 1}',
    "yes, but no": "Yes, but no.",
    "bare word": "first",
    "a list": '["first"]',
    "a number": '{"answer": 1}',
    "other case": '{"answer": "First"}',
    "two answers": '{"answer": "first or second", "reason": ""}',
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_f78_what_is_no_answer_is_a_typed_failure(text: str, clips: PairClips, new_judge: NewJudge) -> None:
    """Not a vote, not a tie, and not sent again."""
    with scripted(chat(text)) as script:
        answer = ask(new_judge, script, clips)
    assert answer.failure is not None
    assert (answer.answer, answer.failure.kind, len(script.requests)) == ("skip", "malformed", 2)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (chat(None), "empty"),
        (chat("  "), "empty"),
        (chat(None, refusal="I cannot help with that"), "refused"),
        (chat('{"answer": "first", "reason": "x"}', finish_reason="length"), "truncated"),
        (chat(None, finish_reason="content_filter"), "filtered"),
        (error(400, "content_filter"), "filtered"),
        (Reply(body={"choices": []}), "malformed"),
        (Reply(body={"id": "x"}), "malformed"),
        (Reply(body="<html>welcome</html>"), "malformed"),
    ],
    ids=["null", "blank", "refusal", "length", "filter", "filter as 400", "no choices", "no completion", "HTML"],
)
def test_f78_each_failure_has_its_kind(reply: Reply, kind: str, clips: PairClips, new_judge: NewJudge) -> None:
    """A reply cut at the length limit is one even where it happens to be whole JSON."""
    with scripted(reply) as script:
        answer = ask(new_judge, script, clips)
    assert answer.failure is not None
    assert answer.failure.kind == kind


def test_f78_a_failure_in_one_order_is_no_answer(clips: PairClips, new_judge: NewJudge) -> None:
    with scripted(lambda request, number: chat("no") if number == 1 else brighter(request)) as script:
        answer = ask(new_judge, script, clips, concurrency=1)
    assert (answer.answer, answer.failure is not None) == ("skip", True)


def test_a_fence_around_the_whole_answer_is_read(clips: PairClips, new_judge: NewJudge) -> None:
    with scripted(chat(f"```json\n{TIE}\n```")) as script:
        assert ask(new_judge, script, clips).answer == "tie"


def test_requests_under_way_are_bounded(clips: PairClips, new_judge: NewJudge) -> None:
    def slow(request: Json, _number: int) -> Reply:
        reply = brighter(request)
        reply.delay_s = 0.1
        return reply

    with scripted(slow) as script, new_judge(script, concurrency=3) as judge:
        judge.judge(clips, ((0, 1), (1, 2), (2, 3), (3, 4)))
    assert (len(script.requests), script.most_at_once) == (8, 3)
