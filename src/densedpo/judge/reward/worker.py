# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "opencv-python-headless", "torch", "transformers==4.45.2", "av"]
# ///
"""A scorer behind HTTP for reward models that need an environment of their own: it imports nothing of densedpo.

    python worker.py --model videoscore --weights FOLDER --port 8041
    densedpo judge http http://127.0.0.1:8041/ PAIRS

Each loader states the frame rate at which its model was trained to see clips, and how its numbers become one score.
Weights (and, where it says so, the model's own code) are read from a local folder; nothing is downloaded. Before it
serves, the worker scores a golden clip and two ruined copies; a model that does not put the clip first, or answers
differently when asked again, is not served: then weights, code and package versions do not belong together.

The environment that each model's authors name goes before the versions above. `--model sharpness` needs numpy and
OpenCV only: it shows that the wire works, and is no judge.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import math
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # [F, H, W, 3], RGB

FORMAT: Final = "densedpo-scores/1"
MAX_BODY_BYTES: Final = 512 << 20
GOLDEN_CAPTION: Final = "a bright square moves to the right over a striped wall"


class Refused(Exception):
    """Something that the user of the worker has to put right; one line."""


class Model(Protocol):
    """A model that scores one clip at a time; higher is better."""

    name: str
    fps: float | None
    """Frames per second that it wants to see."""

    def score(self, frames: Frames, fps: float, caption: str) -> float:
        """The score of a clip."""
        ...


class Sharpness:
    """Variance of the Laplacian less how much it jumps between frames: no model, and no judge."""

    name = "sharpness 1"
    fps: float | None = None

    def score(self, frames: Frames, fps: float, caption: str) -> float:  # noqa: ARG002
        """See `Model`."""
        values = [cv2.Laplacian(cv2.GaussianBlur(frame, (5, 5), 1.0), cv2.CV_64F).std() for frame in frames]
        steps = np.abs(np.diff(frames.astype(np.float64), axis=0)).mean() if len(frames) > 1 else 0.0
        return float(np.mean(values) - steps)


class VideoScore:
    """TIGER-Lab/VideoScore: the mean of its five regression outputs, each about 1 to 4.

    8 frames per second and at most 16 frames, spread evenly; the processor scales and normalises. Needs the authors'
    package `mantis-vl`, and the query text of their example as `query.txt` beside the weights, with `{text_prompt}`
    where the caption goes.
    """

    name = "VideoScore"
    fps: float | None = 8.0
    max_frames = 16

    def __init__(self, weights: Path) -> None:
        torch = _module("torch", "pip install torch")
        mantis = _module("mantis.models.idefics2", "install the authors' package mantis-vl")
        transformers = _module("transformers", "pip install transformers")
        self._torch, self._query = torch, _text(weights / "query.txt")
        self._processor = transformers.AutoProcessor.from_pretrained(weights, local_files_only=True)
        model = mantis.Idefics2ForSequenceClassification.from_pretrained(
            weights, torch_dtype=torch.bfloat16, local_files_only=True
        )
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)

    def score(self, frames: Frames, fps: float, caption: str) -> float:  # noqa: ARG002
        """See `Model`."""
        image = _module("PIL.Image", "pip install pillow")
        shown = frames[np.linspace(0, len(frames) - 1, min(len(frames), self.max_frames)).round().astype(int)]
        text = self._query.replace("{text_prompt}", caption) + "<image> " * len(shown)
        inputs = self._processor(text=text, images=[image.fromarray(frame) for frame in shown], return_tensors="pt")
        with self._torch.no_grad():
            logits = self._model(**{key: value.to(self._device) for key, value in inputs.items()}).logits
        return float(logits[0, :5].float().mean())


class VideoReward:
    """KwaiVGI/VideoReward through the authors' `inference.py`: the sum of normalised VQ, MQ and TA.

    2 frames per second, as it was trained; mean and deviation of its `model_config.json` are taken off (`use_norm`).
    `--code` is a checkout of VideoAlign, `--weights` its checkpoint. A segment of one second has two frames: score
    whole clips, or longer segments.
    """

    name = "VideoReward"
    fps: float | None = None  # the authors' code samples the video file

    def __init__(self, weights: Path, code: Path) -> None:
        _text(weights / "model_config.json")
        _text(code / "inference.py")
        torch = _module("torch", "pip install torch")
        sys.path.insert(0, str(code))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        make = _module("inference", "install the requirements of VideoAlign").VideoVLMRewardInference
        self._torch, self._model = torch, make(str(weights), device=device, dtype=torch.bfloat16)

    def score(self, frames: Frames, fps: float, caption: str) -> float:
        """See `Model`."""
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "clip.mp4"
            write_video(video, frames, fps)
            with self._torch.no_grad():
                found = self._model.reward([str(video)], [caption], fps=2.0, use_norm=True)
        return float(found[0]["Overall"])


class VisionReward:
    """THUDM/VisionReward-Video: its checklist of yes-or-no questions, weighted: the mean of weight * (+1 or -1).

    One frame per second, at most 24. `--weights` holds the model, `VisionReward_video_qa_select.txt` and `weight.json`.
    The model's own code in that folder is run, which has to be allowed by `--trust-code`.
    """

    name = "VisionReward-Video"
    fps: float | None = 1.0
    max_frames = 24

    def __init__(self, weights: Path, *, trust_code: bool) -> None:
        if not trust_code:
            raise Refused("VisionReward runs code out of its weights folder; read it, then pass --trust-code")
        torch = _module("torch", "pip install torch")
        transformers = _module("transformers", "pip install transformers")
        self._questions = _text(weights / "VisionReward_video_qa_select.txt").splitlines()
        self._weight = np.array(json.loads(_text(weights / "weight.json")), dtype=np.float64)
        if len(self._questions) != len(self._weight):
            raise Refused(f"{weights}: {len(self._questions)} questions and {len(self._weight)} weights")
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        local = {"trust_remote_code": True, "local_files_only": True}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(weights, **local)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(weights, torch_dtype=torch.bfloat16, **local)
        self._model = loaded.eval().to(self._device)

    def score(self, frames: Frames, fps: float, caption: str) -> float:  # noqa: ARG002
        """See `Model`."""
        video = self._torch.from_numpy(np.ascontiguousarray(frames[: self.max_frames])).permute(3, 0, 1, 2)
        answers = [self._yes(video, question.replace("[[prompt]]", caption)) for question in self._questions]
        return float(np.mean(np.where(answers, 1.0, -1.0) * self._weight))

    def _yes(self, video: object, question: str) -> bool:
        built = self._model.build_conversation_input_ids(
            tokenizer=self._tokenizer, query=question, images=[video], history=[], template_version="chat"
        )
        inputs = {
            key: built[key].unsqueeze(0).to(self._device) for key in ("input_ids", "token_type_ids", "attention_mask")
        }
        inputs["images"] = [[built["images"][0].to(self._device).to(self._torch.bfloat16)]]
        with self._torch.no_grad():
            output = self._model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=128002)
        word = self._tokenizer.decode(output[0, inputs["input_ids"].shape[1]])
        return str(word).strip().lower() == "yes"


def load(model: str, *, weights: Path | None, code: Path | None = None, trust_code: bool = False) -> Model:
    """The model of a name.

    Raises:
        Refused: no such model, or its weights, its code or a package are missing.
    """
    if model == "sharpness":
        return Sharpness()
    if model not in ("videoscore", "videoreward", "visionreward"):
        raise Refused(f"no model {model!r}; there are sharpness, videoscore, videoreward and visionreward")
    if weights is None or not weights.is_dir():
        raise Refused(f"{model}: its weights are not at {weights}; download them there and pass --weights FOLDER")
    if model == "videoscore":
        return VideoScore(weights)
    if model == "visionreward":
        return VisionReward(weights, trust_code=trust_code)
    if code is None or not code.is_dir():
        raise Refused(f"videoreward: a checkout of VideoAlign is not at {code}; pass --code FOLDER")
    return VideoReward(weights, code)


def golden_clip() -> Frames:
    """Two seconds at 8 frames per second, 256x256: a bright square that moves to the right over stripes."""
    y, x = np.mgrid[0:256, 0:256]
    wall = np.repeat((90 + 40 * np.sin(x / 9) + 20 * np.sin(y / 17))[..., None], 3, axis=2)
    frames = np.repeat(wall[None], 16, axis=0)
    for i, frame in enumerate(frames):
        frame[96:160, 20 + 8 * i : 84 + 8 * i] = (235, 200, 60)
    return np.asarray(frames, dtype=np.uint8)


def self_test(model: Model) -> dict[str, float]:
    """The scores of the golden clip and of its ruined copies.

    Raises:
        Refused: a score is not finite, changes when asked again, or a ruined copy is not below the clip.
    """
    clip = golden_clip()
    rng = np.random.Generator(np.random.Philox(key=0))
    noisy = np.clip(clip + rng.normal(0, 60, clip.shape), 0, 255).astype(np.uint8)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 9.0) for frame in clip]).astype(np.uint8)
    scores = {
        name: model.score(thinned(frames, 8.0, model.fps), 8.0, GOLDEN_CAPTION)
        for name, frames in (("clean", clip), ("again", clip), ("noisy", noisy), ("blurred", blurred))
    }
    if not all(math.isfinite(score) for score in scores.values()):
        raise Refused(f"{model.name}: the golden clip has no finite score: {scores}")
    if abs(scores["clean"] - scores["again"]) > 1e-3 * max(1.0, abs(scores["clean"])):
        raise Refused(f"{model.name}: the golden clip gets another score when asked again: {scores}")
    if scores["clean"] <= max(scores["noisy"], scores["blurred"]):
        raise Refused(f"{model.name}: a ruined copy of the golden clip is not below it: {scores}")
    return scores


def thinned(frames: Frames, fps: float, wanted: float | None) -> Frames:
    """Every n-th frame, so that about the wanted rate is left."""
    return frames if wanted is None else frames[:: max(1, round(fps / wanted))]


def write_video(path: Path, frames: Frames, fps: float) -> None:
    """An mp4 in good quality, for models that read files."""
    av = _module("av", "pip install av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {"crf": "10"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def decoded(pictures: object) -> Frames:
    """Frames from pictures in base64.

    Raises:
        Refused: there is none, one cannot be read, or they differ in size.
    """
    if not isinstance(pictures, list) or not pictures:
        raise Refused("a clip has no frames")
    frames = []
    for picture in pictures:
        try:
            data = base64.b64decode(str(picture), validate=True)
        except ValueError:
            raise Refused("a frame is not base64") from None
        frame = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
        if frame is None:
            raise Refused("a frame is no picture")
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    if len({frame.shape for frame in frames}) > 1:
        raise Refused("the frames of a clip differ in size")
    return np.stack(frames).astype(np.uint8)


def scores_of(model: Model, body: bytes) -> dict[str, float]:
    """The answer to a request.

    Raises:
        Refused: it is none of this format.
    """
    try:
        row = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError):
        row = None
    clips = row.get("clips") if isinstance(row, dict) and row.get("format") == FORMAT else None
    if not isinstance(clips, list):
        raise Refused(f"not a request of format {FORMAT}")
    found = {}
    for clip in clips:
        try:
            id_, fps, caption = str(clip["id"]), float(clip["fps"]), str(clip["caption"])
            pictures = clip["frames"]
        except (KeyError, TypeError, ValueError):
            raise Refused("a clip needs id, fps, caption and frames") from None
        found[id_] = model.score(thinned(decoded(pictures), fps, model.fps), fps, caption)
    return found


def server(model: Model, *, host: str, port: int) -> ThreadingHTTPServer:
    """A server that answers for a model, one clip at a time; the caller runs it."""
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(200, {"format": FORMAT, "scorer": model.name, "fps": model.fps})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self._reply(413, {"error": "the request has no length, or is too long"})
                return
            try:
                with lock:
                    self._reply(200, {"scores": scores_of(model, self.rfile.read(int(length)))})
            except Refused as error:
                self._reply(400, {"error": str(error)})

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing: captions do not belong in a log."""

        def _reply(self, code: int, row: dict[str, object]) -> None:
            data = json.dumps(row).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return ThreadingHTTPServer((host, port), Handler)


def _module(name: str, remedy: str) -> ModuleType:
    """A package of the model's own environment, of which nothing is known here."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Refused(f"{name} cannot be imported ({error}); {remedy}") from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise Refused(f"{path} is missing")
    return path.read_text(encoding="utf-8")


def main() -> None:
    """Loads a model, tests it and serves it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--code", type=Path)
    parser.add_argument("--trust-code", action="store_true")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8041)
    given = parser.parse_args()
    try:
        model = load(given.model, weights=given.weights, code=given.code, trust_code=given.trust_code)
        scores = self_test(model)
    except Refused as error:
        print(f"worker: {error}", file=sys.stderr)
        sys.exit(2)
    running = server(model, host=given.host, port=given.port)
    print(f"{model.name} passed its golden clip {scores}; http://{given.host}:{running.server_address[1]}/", flush=True)
    running.serve_forever()


if __name__ == "__main__":
    main()
