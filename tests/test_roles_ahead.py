"""What `aligner check` says of a reward model, before anything is made and after, is what the run finds in the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.check import check_recipe
from aligner.check_rewards import APART, SHARED
from aligner.pipeline import run_recipe
from tests.test_pipeline import PPO, REWARD, folder  # noqa: F401

LORA = "lora: {rank: 2, alpha: 4}"


def rewards_in(recipe: str) -> tuple[str, str]:
    (row,) = [row for row in check_recipe(Path(recipe)).stages[-1].rows if row.name == "reward.0"]
    return row.value, row.why


@pytest.mark.parametrize(
    ("reward", "ppo", "value", "why"),
    [
        ("base: sft.yaml, merge: true", "base: sft.yaml", APART, "it was trained whole"),
        (
            f"base: sft.yaml, merge: true, {LORA}",
            f"base: sft.yaml, merge: true, {LORA}",
            SHARED,
            "same weights",
        ),
        ("base: sft.yaml", "base: sft.yaml", SHARED, "same weights"),
        (f"base: base.yaml, {LORA}", "base: sft.yaml", SHARED, "same weights"),
        (f"base: base.yaml, {LORA}", f"base: sft.yaml, merge: true, {LORA}", APART, "merged with"),
    ],
)
def test_the_plan_tells_what_the_run_finds(
    folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    reward: str,
    ppo: str,
    value: str,
    why: str,
) -> None:
    (folder / "reward.yaml").write_text(REWARD.replace("base: sft.yaml, merge: true", reward))
    (folder / "ppo.yaml").write_text(PPO.replace("{base: sft.yaml}", f"{{{ppo}}}"))
    before = rewards_in("ppo.yaml")
    assert before[0] == value and why in before[1]
    if "base.yaml" not in reward:  # in the pipeline it stands on @sft, over which no second adapter goes
        assert rewards_in("all.yaml")[0] == value  # the same by the names of a pipeline's stages
    run_recipe(Path("ppo.yaml"))
    assert f"reward.0: {value}" in capsys.readouterr().err
    assert rewards_in("ppo.yaml") == before
    named = PPO.replace("{base: sft.yaml}", f"{{{ppo}}}").replace("reward.yaml", "runs/reward")
    (folder / "named.yaml").write_text(
        named.replace("sft.yaml", "runs/sft").replace("runs/ppo", "runs/named")
    )
    assert rewards_in("named.yaml")[0] == value  # and of folders that are there
