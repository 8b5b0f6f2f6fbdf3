"""What is refused before anything is loaded, and what a model directory says about itself."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from densedpo.adapters import catalogue, load
from densedpo.core.errors import BadInput


@pytest.fixture
def copy(toy_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_model_dir, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "pytorch_model.bin", "model.ckpt", "weights.pt"])
def test_a_pickle_for_weights_is_refused_and_never_opened(copy: Path, component: str, name: str) -> None:
    trace = copy / "unpickled"
    for weights in (copy / component).glob("*.safetensors"):
        weights.unlink()
    (copy / component / name).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(BadInput, match=name):
        load(copy)
    assert not trace.exists()


def test_an_index_that_names_a_pickle_is_refused(copy: Path) -> None:
    index = copy / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"proj_out.weight": "evil.bin"}}))
    with pytest.raises(BadInput, match=r"evil\.bin"):
        load(copy)


def test_a_pickle_for_an_adapter_is_refused(copy: Path, tmp_path: Path) -> None:
    trace = tmp_path / "unpickled"
    file = tmp_path / "adapter.bin"
    file.write_bytes(pickle.dumps(Bomb(trace)))
    model = load(copy)
    with pytest.raises(BadInput, match="pickle"):
        model.load_adapter(file)
    with pytest.raises(BadInput, match="missing"):
        model.load_adapter(tmp_path)
    (tmp_path / "adapter.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(BadInput, match=r"adapter\.safetensors"):
        model.load_adapter(tmp_path / "adapter.safetensors")
    assert not trace.exists()


def test_truncated_weights_are_refused_by_name(copy: Path) -> None:
    weights = next((copy / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BadInput, match=str(copy)):
        load(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "MochiPipeline"}, "MochiPipeline; the families known are WanPipeline"),
        ({"boundary_ratio": 0.9}, "boundary_ratio without a transformer_2"),
        ({"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "boundary_ratio is None"),
        ({"vae": ["my_module", "MyVAE"]}, "vae is MyVAE"),
    ],
)
def test_other_layouts_are_refused_by_name(copy: Path, changes: dict[str, object], words: str) -> None:
    edit(copy / "model_index.json", **changes)
    with pytest.raises(BadInput, match=words):
        load(copy)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-such-folder", "hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("nobody/nothing", "hf download nobody/nothing"),
    ],
)
def test_an_absent_model_prints_how_to_get_it(name: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        catalogue.find(name)


def test_settings_with_an_unknown_key_are_refused(copy: Path) -> None:
    edit(copy / "densedpo.json", frames=9)
    with pytest.raises(BadInput, match=r"densedpo\.json: key 'frames'"):
        catalogue.geometry(copy)


@pytest.mark.parametrize(("key", "value"), [("num_frames", 10), ("height", 40), ("width", 8)])
def test_sizes_that_would_be_rounded_are_refused(copy: Path, key: str, value: int) -> None:
    edit(copy / "densedpo.json", **{key: value})
    with pytest.raises(BadInput, match=f"{key} = {value}"):
        catalogue.geometry(copy)


def test_a_directory_without_settings_has_wans_defaults(copy: Path) -> None:
    (copy / "densedpo.json").unlink()
    geometry, defaults = catalogue.geometry(copy), catalogue.defaults(copy)
    assert (geometry.num_frames, geometry.height, geometry.width, geometry.fps) == (81, 480, 832, 16.0)
    assert (geometry.max_sequence_length, geometry.latent_shape) == (512, (16, 21, 60, 104))
    assert (defaults.num_steps, defaults.guidance_scale, defaults.eta_min, defaults.eta_max) == (50, 5.0, 0.65, 0.8)


def test_unipc_in_flow_mode_gives_its_shift(copy: Path) -> None:
    config = {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "flow_shift": 3.0}
    (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    edit(copy / "model_index.json", scheduler=["diffusers", "UniPCMultistepScheduler"])
    sigmas = load(copy).sigmas(4)
    # shift s maps u to s u / (1 + (s - 1) u); after the first step of 4 from 1 to about 0.003 (applied to the shifted
    # end points, as diffusers does), u is about 0.668
    assert sigmas[1] == pytest.approx(3 * 0.6677 / (1 + 2 * 0.6677), abs=2e-3)


def test_the_fingerprint_is_of_the_content(copy: Path, toy_model_dir: Path) -> None:
    before, before_vae = catalogue.fingerprint(copy), catalogue.vae_fingerprint(copy)
    assert before == catalogue.fingerprint(toy_model_dir) == load(copy).fingerprint
    assert before_vae == load(copy).vae_fingerprint
    weights = next((copy / "transformer").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert catalogue.fingerprint(copy) != before
    assert catalogue.vae_fingerprint(copy) == before_vae


def test_geometry_needs_no_torch(toy_model_dir: Path) -> None:
    code = (
        "import sys; from densedpo.adapters import catalogue; catalogue.geometry(sys.argv[1]); "
        "catalogue.fingerprint(sys.argv[1]); print('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(toy_model_dir)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
