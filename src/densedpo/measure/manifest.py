"""What made and scored the clips of a report: two reports are compared only where these agree.

The weights are in the report's `subject`, and the clips' rate, size and number in its `settings`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

import av
from pydantic import ConfigDict

from densedpo.core.provenance import code_version, package_version

# what reads and writes clips, and what turns them into numbers
PACKAGES: Final = ("torch", "diffusers", "transformers", "peft", "numpy", "scipy", "opencv-python-headless")
ENTRIES: Final = ("densedpo", "code", "decoder", "dtype", "device", "gpu", *PACKAGES)
_LIBRARIES: Final = ("libavcodec", "libavformat", "libswscale")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The machinery behind a report.

    `code` is the git commit, with `-dirty` where files differ from it; None for an installed wheel. `dtype` and
    `device` are None where no model ran, `gpu` where none was used. `packages` are versions, None where not installed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    densedpo: str | None
    code: str | None
    decoder: str
    dtype: str | None
    device: str | None
    gpu: str | None
    packages: dict[str, str | None]

    def entries(self) -> dict[str, str | None]:
        """Every entry by the name that a refusal gives it."""
        own = {
            "densedpo": self.densedpo,
            "code": self.code,
            "decoder": self.decoder,
            "dtype": self.dtype,
            "device": self.device,
            "gpu": self.gpu,
        }
        return own | self.packages


def manifest(*, dtype: str | None, device: str | None) -> Manifest:
    """The manifest of what runs in this process.

    Args:
        dtype: of the denoiser; None where no model runs.
        device: where it runs; None where no model runs.
    """
    return Manifest(
        densedpo=package_version("densedpo"),
        code=_code(),
        decoder=decoder_version(),
        dtype=dtype,
        device=device,
        gpu=_gpu(device),
        packages={name: package_version(name) for name in PACKAGES},
    )


def decoder_version() -> str:
    """The decoder and its libraries, such as `PyAV 16.0.1, libavcodec 62.11.100`."""
    libraries = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in _LIBRARIES)
    return ", ".join([f"PyAV {av.__version__}", *libraries])


def different_entries(one: Manifest, other: Manifest) -> dict[str, tuple[str | None, str | None]]:
    """The entries in which two manifests differ, with both values, by name."""
    here, there = one.entries(), other.entries()
    names = sorted(here.keys() | there.keys())
    return {name: (here.get(name), there.get(name)) for name in names if here.get(name) != there.get(name)}


@cache
def _code() -> str | None:
    # once for each process: the code that runs is the code that was loaded, whatever is committed meanwhile
    return code_version()


def _gpu(device: str | None) -> str | None:
    torch = sys.modules.get("torch")  # never imported for the sake of this record
    if torch is None or device is None or not device.startswith("cuda"):
        return None
    return str(torch.cuda.get_device_name(device))
