"""Progress where there is no terminal, and silence."""

from __future__ import annotations

import pytest

from densedpo.core.progress import duration_text, set_quiet, track


def test_items_pass_through_and_the_end_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), what="counting")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "counting: 3 in 0 s\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    set_quiet(True)
    try:
        assert list(track(iter("ab"), total=2, what="counting")) == ["a", "b"]
    finally:
        set_quiet(False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
