"""Each exported format is loaded back by the tool that it is for, and computes what our adapter computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from peft import PeftModel
from safetensors.torch import load_file

from densedpo.adapters import load
from densedpo.adapters.comfyui import comfyui_name
from densedpo.cli.main import run as densedpo
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_file
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.release.formats import release
from densedpo.learn.run import learn_offline
from toy import add_lora
from toy_families import ANIMATEDIFF, WAN_TWO_EXPERTS

SETTINGS = {
    "num_steps": 3, "batch_pairs": 2, "eval_every": 3, "eval_pairs": 2, "eval_draws": 1, "lora_rank": 4,
    "lora_alpha": 6.0, "learning_rate": 1e-2, "warmup_steps": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(_made: Path, toy_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("released") / "project"
    shutil.copytree(_made, root)
    project, config = Project(root=root), LearnConfig.model_validate(SETTINGS)
    learn_offline(project, "good", pairs="toy", preferences="toy", model=toy_model_dir, config=config)
    return project


@pytest.fixture(scope="module")
def ours(trained: Project, toy_model_dir: Path) -> Callable[[], torch.Tensor]:
    model = load(toy_model_dir)
    model.load_adapter(trained.run("good") / "adapter.safetensors")
    return model.denoiser


def predicted(denoiser: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return denoiser(
            hidden_states=seeds.noise((1, 16, 3, 4, 4), "x"),
            timestep=torch.tensor([500.0]),
            encoder_hidden_states=seeds.noise((1, 24, 32), "text"),
            return_dict=False,
        )[0]


def assert_same(theirs: torch.nn.Module, ours: torch.nn.Module, base: Path) -> None:
    wanted = predicted(ours)
    torch.testing.assert_close(predicted(theirs), wanted, rtol=1e-4, atol=1e-5)
    assert float((predicted(load(base).denoiser) - wanted).abs().max()) > 1e-3


def test_diffusers_reads_it(trained: Project, ours, toy_model_dir: Path):
    folder = release(trained, "good", "diffusers")
    pipeline = WanPipeline.from_pretrained(toy_model_dir)
    pipeline.load_lora_weights(folder)
    assert_same(pipeline.transformer.eval(), ours, toy_model_dir)


def test_peft_reads_it(trained: Project, ours, toy_model_dir: Path):
    folder = release(trained, "good", "peft")
    transformer = WanTransformer3DModel.from_pretrained(toy_model_dir / "transformer")
    assert_same(PeftModel.from_pretrained(transformer, folder).eval(), ours, toy_model_dir)


def test_comfyuis_names_lead_back_to_the_same_layers(trained: Project, ours, toy_model_dir: Path):
    """diffusers reads files by ComfyUI's names too, through a table that is not ours."""
    folder = release(trained, "good", "comfyui")
    keys = set(load_file(folder / "good.safetensors"))
    assert "diffusion_model.blocks.1.cross_attn.o.lora_B.weight" in keys
    assert "diffusion_model.blocks.0.ffn.2.alpha" in keys
    pipeline = WanPipeline.from_pretrained(toy_model_dir)
    pipeline.load_lora_weights(folder, weight_name="good.safetensors")
    assert_same(pipeline.transformer.eval(), ours, toy_model_dir)


def test_layers_that_comfyui_does_not_know_are_refused(toy_model_dir: Path, tmp_path: Path):
    with pytest.raises(BadInput, match=r"name of the layer condition_embedder.time_proj is not known"):
        comfyui_name(toy_model_dir, "condition_embedder.time_proj")
    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "WanImageToVideoPipeline"}', encoding="utf-8")
    assert comfyui_name(tmp_path, "blocks.0.attn2.add_k_proj") == "diffusion_model.blocks.0.cross_attn.k_img"
    index.write_text('{"_class_name": "OtherPipeline"}', encoding="utf-8")
    with pytest.raises(BadInput, match="not for OtherPipeline"):
        comfyui_name(tmp_path, "blocks.0.attn1.to_q")


def test_merged_weights_compute_what_base_and_adapter_do(trained: Project, ours, toy_model_dir: Path):
    folder = release(trained, "good", "merged")
    transformer = WanTransformer3DModel.from_pretrained(folder / "transformer")
    assert not any("lora" in name for name, _ in transformer.named_parameters())
    assert_same(transformer.eval(), ours, toy_model_dir)


def test_the_card_says_what_it_was_made_from_and_what_was_measured(trained: Project, toy_model_dir: Path):
    run = trained.run("good")
    report = {
        "kind": "run", "name": "after", "subject": {"adapter": sha256_file(run / "adapter.safetensors")},
        "settings": {"num_prompts": 12, "seeds_per_prompt": 2},
        "estimates": {"motion": {"value": 0.25, "low": 0.2, "high": 0.3, "n": 12}, "left out": None},
    }  # fmt: skip
    other = report | {"name": "another", "subject": {"adapter": "0" * 64}}
    for row in (report, other):
        (trained.report(row["name"])).mkdir(parents=True, exist_ok=True)
        (trained.report(row["name"]) / "report.json").write_text(json.dumps(row), encoding="utf-8")
    card = (release(trained, "good", "peft") / "README.md").read_text(encoding="utf-8")
    assert "12 training and 2 validation pairs, from" in card
    assert "`preferences/toy.jsonl` (sha256 " in card
    assert "| on validation pairs | step 0 | step 3 |" in card
    assert "| motion | 0.25 | 0.2 to 0.3 | 12 |" in card
    assert "another" not in card
    assert "lora_rank = 4" in card
    assert str(toy_model_dir.parent) not in card


def test_the_card_says_how_pairs_were_judged_while_the_labels_are_those_of_the_run(trained: Project):
    run, path = Path(shutil.copytree(trained.run("good"), trained.run("judged"))), trained.preferences("judged")
    header = {
        "pairs": "toy", "annotators": ["anna", "oracle"], "only_annotators": None, "segment_seconds": 1.0,
        "num_pairs": 18, "num_unjudged_pairs": 0, "num_segments": 36, "num_judgements": 54, "tie_share": 0.25,
        "both_signs_share": 0.1, "a_share": 0.5, "labels_sha256": "0" * 64,
    }  # fmt: skip
    path.write_text(json.dumps({"header": header}) + "\n", encoding="utf-8")
    row = json.loads((run / "run.json").read_text(encoding="utf-8"))
    row["identity"]["inputs"] = {"preferences/judged.jsonl": sha256_file(path)}
    (run / "run.json").write_text(json.dumps(row), encoding="utf-8")
    card = (release(trained, "judged", "peft") / "README.md").read_text(encoding="utf-8")
    assert "- labels: 54 judgements by 2 judges or people, 25 % of the segments tied\n" in card
    assert "anna" not in card
    path.write_text(json.dumps({"header": header | {"num_judgements": 55}}) + "\n", encoding="utf-8")
    assert "labels:" not in (release(trained, "judged", "peft") / "README.md").read_text(encoding="utf-8")


def test_a_run_on_real_clips_is_said_to_have_learned_from_them(trained: Project, toy_model_dir: Path):
    config = LearnConfig.model_validate({"objective": "sft", "num_steps": 1, "batch_pairs": 1, "eval_every": 0})
    learn_offline(trained, "clips", pairs=None, preferences=None, model=toy_model_dir, config=config)
    card = (release(trained, "clips", "peft") / "README.md").read_text(encoding="utf-8")
    assert "6 real clips to train on and 0 validation pairs, from\n- `clips` (sha256 " in card


def run_on(folder: Path, trained: Project, name: str) -> Path:
    """A finished run whose adapter is one of the model in a folder."""
    run = Path(shutil.copytree(trained.run("good"), trained.run(name)))
    shutil.rmtree(run / "release", ignore_errors=True)
    model = load(folder)
    add_lora(model)
    model.save_adapter(run / "adapter.safetensors")
    row = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps(row | {"model": str(folder)}), encoding="utf-8")
    return run


def test_of_two_experts_the_one_that_was_trained_is_released_by_its_name(trained: Project, tmp_path: Path):
    folder = WAN_TWO_EXPERTS.save(tmp_path)
    run = run_on(folder, trained, "experts")
    merged = release(trained, "experts", "merged")
    ours = load(folder)
    ours.load_adapter(run / "adapter.safetensors")
    theirs = WanTransformer3DModel.from_pretrained(merged / "transformer_2").eval()
    torch.testing.assert_close(predicted(theirs), predicted(ours.denoiser), rtol=1e-4, atol=1e-5)
    assert "`transformer_2=` the model in `transformer_2/`" in (merged / "README.md").read_text(encoding="utf-8")
    card = (release(trained, "experts", "diffusers") / "README.md").read_text(encoding="utf-8")
    assert "`pipeline.load_lora_weights(FOLDER, load_into_transformer_2=True)`" in card
    card = (release(trained, "experts", "comfyui") / "README.md").read_text(encoding="utf-8")
    assert "by a LoRA loader node on the model of low noise" in card


def test_a_unets_adapter_is_released_for_a_unet(trained: Project, tmp_path: Path):
    run_on(ANIMATEDIFF.save(tmp_path), trained, "unet")
    card = (release(trained, "unet", "peft") / "README.md").read_text(encoding="utf-8")
    assert "`PeftModel.from_pretrained(pipeline.unet, FOLDER)`" in card
    assert "does not" not in card


def test_the_card_says_what_the_pipeline_has_to_be_told(trained: Project, tmp_path: Path):
    folder = ANIMATEDIFF.save(tmp_path)
    settings = json.dumps({**ANIMATEDIFF.settings, "first_frame": True, "sparse_causal": "gathered"})
    (folder / "densedpo.json").write_text(settings, encoding="utf-8")
    run_on(folder, trained, "sparse")
    card = (release(trained, "sparse", "peft") / "README.md").read_text(encoding="utf-8")
    assert "call `use_sparse_causal(pipeline.unet, num_frames=LATENT_FRAMES)`" in card
    assert "It continues a first frame, which `AnimateDiffPipeline` does not take" in card


def test_the_verb_writes_one_format(trained: Project, capsys):
    with pytest.raises(SystemExit) as leaving:
        densedpo(["learn", "export", "good", "--format", "peft", "--project", str(trained.root)])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == "runs/good/release/peft\n"


@pytest.mark.parametrize("name", ["unfinished", "absent"])
def test_what_is_not_there_or_not_finished_is_refused(trained: Project, name: str):
    if name == "unfinished":
        shutil.copytree(trained.run("good"), trained.run(name))
        (trained.run(name) / "stamp.json").unlink()
    with pytest.raises(BadInput, match="does not exist" if name == "absent" else "is not finished"):
        release(trained, name, "diffusers")
