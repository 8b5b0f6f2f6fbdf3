from __future__ import annotations

import pytest

from densedpo.core.config import dump_toml, load_config
from densedpo.core.errors import BadInput
from densedpo.learn.online.config import OnlineConfig

REFUSED = {
    "rollouts=3": "multiple of 2",
    "learn.objective=sft": "learn online does not take it",
    "learn.draws=4": "learn online does not take it",
    "learn.eval_every=5": "less than or equal to 0",
    "learn.num_steps=7": "follows from num_rounds and steps_per_round, which make 100",
    "eta_max=0.8": "no effect with kind = 'independent'",
    "guard.patience=2": "need a held-out score",
    'guard.judge={judge = "reward"}': "is not held out",
    'rewards=[{judge = "http"}]': "url goes with judge",
    "rewards=[{weight = 0.0}]": "leave this reward out",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_a_setting_that_has_no_meaning_is_refused_with_its_reason(setting: str):
    with pytest.raises(BadInput, match=REFUSED[setting]):
        load_config(OnlineConfig, None, [setting])


def test_the_number_of_steps_is_that_of_all_rounds():
    config = load_config(OnlineConfig, None, ["num_rounds=3", "steps_per_round=7"])
    assert config.training.num_steps == 21


def test_what_a_run_writes_down_reads_back_as_the_same_settings(tmp_path):
    config = load_config(OnlineConfig, None, ["num_rounds=3", "learn.beta=20.0", 'rewards=[{judge = "oracle"}]'])
    written = config.model_copy(update={"learn": config.training})
    (tmp_path / "config.toml").write_text(dump_toml(written))
    again = load_config(OnlineConfig, tmp_path / "config.toml", [])
    assert again.model_dump() == written.model_dump()
