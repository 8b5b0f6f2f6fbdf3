"""The model of an online run: the policy's adapter, and the reference's beside it."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save

from densedpo.core.files import write_atomic
from densedpo.core.provenance import sha256_json
from densedpo.learn.checkpoint import load_latest
from densedpo.learn.execution import read_back, watching_products
from densedpo.learn.models import load_base
from densedpo.learn.online.reference import SecondAdapter
from densedpo.learn.processes.shard import like, made_whole, shard, whole, whole_on_first
from densedpo.learn.reference import attach_lora, trainable
from densedpo.learn.step import build_optimizer

if TYPE_CHECKING:
    from pathlib import Path

    from densedpo.learn.course import InForce
    from densedpo.learn.feed.batch import ClipBatch
    from densedpo.learn.online.run import OnlineInputs
    from densedpo.learn.processes.team import Team

_log = logging.getLogger("densedpo")


class Policy:
    """A model with the adapter that is trained and a frozen one, at some step of a run, on each process of a team.

    `step` is the last step that the policy has taken. What is asked of one process is to be asked of all of them.
    """

    def __init__(self, inputs: OnlineInputs, identity: str, team: Team) -> None:
        """Loads the model and puts the newest checkpoint in place, if there is one.

        Args:
            identity: the hash of the run's config and inputs, which its checkpoints carry.

        Raises:
            BadInput: there are checkpoints and none of them is valid.
        """
        self._config, self._team = inputs.config.training, team
        ahead = ["", *(prompt.caption for prompt in (*inputs.prompts, *inputs.guard_prompts))]
        self.model = load_base(inputs.model, self._config, captions=inputs.project.captions, ahead=ahead)
        attach_lora(self.model, self._config)
        self.reference = SecondAdapter(self.model)
        if team.is_sharded:
            shard(self.model.denoiser)
        self.parameters = trainable(self.model.denoiser)
        self.optimizer = build_optimizer(self.parameters, self._config)
        self._fingerprint, self._folder = inputs.fingerprint, inputs.folder
        self._every = inputs.config.refresh_every
        self.step = self._restore(identity)

    def watch_products(self, batch: ClipBatch) -> None:
        """Runs the reference on a batch, and refuses to go on if products are of another precision than asked for."""
        with watching_products(self.model.denoiser, self._config):
            self.reference.residuals(batch)

    def in_force(self) -> InForce:
        """What is trained and how, read back from the model."""
        return read_back(self.model.denoiser, self.parameters, self._config, compiled=0)

    def identity(self) -> str:
        """Identity of the weights in force: of the base, and of every tensor of the adapter."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.parameters.items()):
            digest.update(name.encode() + whole(parameter.detach()).cpu().contiguous().numpy().tobytes())
        return self._team.told(sha256_json([self._fingerprint, digest.hexdigest()]))

    def save(self, path: Path) -> None:
        """Writes the adapter in the family's format."""

        def write() -> None:
            self.model.save_adapter(path)

        with made_whole(self.model.denoiser, self.parameters):
            self._team.first_does(write)

    def next_refresh(self) -> int | None:
        """The step after which the reference is due to become the policy again; None if never."""
        return (self.step // self._every + 1) * self._every if self._every else None

    def put_reference(self) -> bool:
        """Puts the reference of the next step in place; returns whether the policy equals it now.

        What the reference is made of is on the disk before the policy moves on, so that a run that is cut finds it.
        """
        refreshed = self.step // self._every * self._every if self._every else 0
        if refreshed == 0:
            self.reference.reset()
            return self.step == 0
        path = self._folder / "references" / f"step-{refreshed:06d}.safetensors"
        if self.step == refreshed:
            tensors = whole_on_first(self.parameters, self._team)
            self._team.first_does(lambda: write_atomic(path, save(tensors)))
            _log.info("step %d: the reference is now the policy", self.step)
        self.reference.become(load_file(path))
        return self.step == refreshed

    def _restore(self, identity: str) -> int:
        found = load_latest(
            self._folder / "checkpoints",
            identity=identity,
            patterns=self.parameters,
            goes_back=self._config.damaged_checkpoint == "go_back",
        )
        if found is None:
            return 0
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(like(found.adapter[name], parameter))
        return found.state.step
