"""The settings of a training run. Importing this imports no torch."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from densedpo.core.config import Config

ObjectiveName = Literal[
    "dense_dpo", "dense_dpo_summed", "dense_dpo_ties", "dense_ipo", "dense_robust", "dpo", "dpo_levels", "sft"
]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
_DEFAULT_NU: Final = 3.0
_DEFAULT_LEVELS: Final = (1.0, 1.0, 1.0)
_DEFAULT_RANK: Final = 16
_DEFAULT_ALPHA: Final = 16.0


class LearnConfig(Config):
    """What one run does. The defaults are for the shipped model; `recipes/` has published setups."""

    objective: ObjectiveName = "dense_dpo"
    """The loss; sft trains on the real clips instead, as a control."""
    beta: Positive = 500.0
    """Pull to the reference, under mean reduction with the factor 1/2, for velocity errors; unused by sft."""
    nu: Annotated[float, Field(gt=1)] = _DEFAULT_NU
    """How wide a range of margins is a tie: at equal strength a tie has (nu - 1)/(nu + 1); dense_dpo_ties only."""
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the labels that are wrong; dense_robust only, and must be given there."""
    level_weights: tuple[Weight, Weight, Weight] = _DEFAULT_LEVELS
    """How much the clip, its segments and its region count in the loss; dpo_levels only."""
    winner_anchor: Annotated[float, Field(ge=0)] = 0.0
    """Adds so many times the error on the winner itself to a preference loss."""
    num_steps: Count = 100
    """Optimizer steps."""
    batch_pairs: Count = 16
    """Pairs in one forward; sft takes twice as many clips, for equal compute."""
    accumulation: Count = 1
    """Forwards in one step: a step sees batch_pairs * accumulation pairs."""
    min_non_tie_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Pairs with a smaller share of labelled frames are not sampled (paper, A.3); a tie counts with dense_dpo_ties."""
    use_confidence: bool = False
    """Soft labels from the confidence of the judgements; dense_dpo only."""
    cell_weight: Literal["none", "difference"] = "none"
    """Weight of a latent frame in the loss: none, or how much the two clips differ in it, with mean 1 over the pair."""
    loser_safeguard: Annotated[float, Field(ge=0, le=1)] | None = None
    """mu of Diffusion-SDPO: scales the loser's gradient so that the winner's error does not rise; off if not given."""
    allow_failed_judge: bool = False
    """Learn from labels of a judge that failed its probe; without it they are refused."""
    shuffle_labels: bool = False
    """A control: the labels of the training pairs are dealt out again among them."""
    fold: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=2)]] | None = None
    """[i, k]: train without part i (from 0) of the training pairs, cut into k by source, and judge it; for audits."""
    fold_draws: Count = 8
    """Fixed draws of (t, noise) of each pair of the part that is left out."""

    learning_rate: Positive = 1e-4
    """Of AdamW, after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    """Steps over which the learning rate rises from 0, linearly."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant, or down to 0 at the last step along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of AdamW."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of AdamW."""
    adam_eps: Positive = 1e-8
    """Of AdamW: what its division adds to the root of the second moment."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient; a larger one is scaled down."""
    max_skipped_steps: Count = 5
    """Steps in a row whose loss or gradient is not finite before the run stops."""
    train: Literal["lora", "full"] = "lora"
    """What moves: a LoRA, or the weights of the denoiser, which are then float32."""
    trainable: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """With train = 'full' only weights whose names match one of these, such as *motion_modules*; the rest is frozen."""
    start_from: str | None = None
    """A finished run with train = 'full', whose weights are the start and the reference; the base's if not given."""
    reference_copy: Literal["device", "cpu"] = "device"
    """train = 'full' with fresh draws holds a frozen copy: on the device, or on CPU but for the block that runs."""
    lora_rank: Count = _DEFAULT_RANK
    """Of each adapted layer."""
    lora_alpha: Positive = _DEFAULT_ALPHA
    """The adapter's output is scaled by lora_alpha / lora_rank."""
    lora_targets: tuple[str, ...] | None = None
    """Names of linear layers; by default the model adapter's choice."""

    seed: int = 0
    """Order of the pairs and initial adapter."""
    noise_seed: int = 0
    """Noise and t of every (pair, draw); apart from `seed` so that runs can share draws."""
    draws: Count | Literal["fresh"] = "fresh"
    """Draws of (t, noise) per pair, stratified over t, whose reference errors are cached; or new ones on each visit."""
    noise: Literal["fresh", "own"] = "fresh"
    """Training noise: one draw for both clips of a pair, or the noises from which each clip was generated."""
    t_min: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Lowest noise level that is trained on."""
    t_max: Annotated[float, Field(gt=0, le=1)] = 1.0
    """t is logit-normal, cut to [t_min, t_max]."""
    t_mean: float = 0.0
    """Of the normal variable whose logistic is t."""
    t_std: Positive = 1.0
    """Of the same variable."""

    eval_every: Annotated[int, Field(ge=0)] = 20
    """Steps between evaluations of the validation pairs; 0 = off."""
    eval_pairs: Count = 64
    """Validation pairs in an evaluation, at most."""
    eval_draws: Count = 4
    """Fixed draws of (t, noise) of each validation pair."""
    select: Literal["last", "best_validation"] = "last"
    """Which adapter the run ends with; best = lowest validation loss."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations without a lower validation loss before the run stops early; 0 = never."""
    stop_on_alarm: bool = False
    """Stop at the evaluation that gives reason for a warning (a shortcut, unlearning, wins by losers, a runaway)."""
    ema_decay: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    """Average the adapter over steps, at most this slowly; evaluations and the run's end then take the average."""
    where_pairs: Annotated[int, Field(ge=0)] = 8
    """Validation pairs in where.jsonl, which says per latent frame where the model learned."""

    checkpoint_every: Annotated[int, Field(ge=0)] = 50
    """Steps between checkpoints; 0 = only when interrupted and at the end."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """How many of the newest stay."""
    damaged_checkpoint: Literal["go_back", "stop"] = "go_back"
    """The newest checkpoint is not whole: the run goes on from the one before it, or stops and names it."""
    device: str = "cpu"
    """Where the model runs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen weights, and of the products where all are trained; what moves, noise and losses are float32."""
    strategy: Literal["auto", "single", "data_parallel", "fully_shard"] = "auto"
    """One process, several that share out each forward, or that also cut the model up; auto: one of the first two."""
    process_timeout_min: Positive = 60.0
    """Minutes after which a process that hears nothing of the others gives up; resumable."""
    memory: Literal["packed", "apart", "auto"] = "packed"
    """Both clips of a pair in one forward, or one after the other, with two forwards more; auto: packed if it fits."""
    checkpoint_activations: bool = False
    """Keep few activations and compute the rest again in the backward: less memory, one forward more."""
    compile_blocks: bool = False
    """Compile the denoiser's blocks by torch.compile in their first forward, which takes up to minutes."""
    attention: str | None = None
    """The attention kernel by its name in diffusers, such as native, flash or sage; by default the model's own."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.t_min >= self.t_max:
            raise ValueError(f"t_min = {self.t_min} is not below t_max = {self.t_max}")
        if self.use_confidence and self.objective != "dense_dpo":
            raise ValueError(f"use_confidence has no effect with {self.objective}; only dense_dpo takes soft labels")
        if sum(self.level_weights) == 0:
            raise ValueError("level_weights are all 0: no level is left to learn from")
        self._refuse_without_effect()
        self._refuse_for_full()
        if self.strategy == "fully_shard" and self.memory == "auto":
            raise ValueError("memory = 'auto' tries a forward, which sharded processes cannot; choose packed or apart")
        if self.objective == "dense_robust" and self.flip_rate == 0:
            raise ValueError("dense_robust without a flip_rate is dense_dpo; set flip_rate above 0")
        if self.objective == "sft":
            self._refuse_for_sft()
        if self.fold is not None and self.fold[0] >= self.fold[1]:
            raise ValueError(f"fold = {list(self.fold)}: the parts of {self.fold[1]} are 0 to {self.fold[1] - 1}")
        if self.eval_every == 0 and (self.select == "best_validation" or self.patience or self.stop_on_alarm):
            raise ValueError(
                "select = 'best_validation', patience and stop_on_alarm need evaluations: set eval_every above 0"
            )
        return self

    def _refuse_without_effect(self) -> None:
        takes_weights = self.objective in ("dense_dpo", "dense_dpo_ties", "dense_ipo", "dense_robust")
        without_effect = {
            "nu": self.nu != _DEFAULT_NU and self.objective != "dense_dpo_ties",
            "flip_rate": self.flip_rate != 0 and self.objective != "dense_robust",
            "level_weights": self.level_weights != _DEFAULT_LEVELS and self.objective != "dpo_levels",
            "winner_anchor": self.winner_anchor != 0 and self.objective == "sft",
            "cell_weight": self.cell_weight != "none" and not takes_weights,
            "loser_safeguard": self.loser_safeguard is not None and self.objective == "sft",
            "noise": self.noise != "fresh" and self.objective == "sft",
            "fold": self.fold is not None and self.objective == "sft",
            "memory": self.memory != "packed" and self.objective == "sft",
        }
        for name, is_idle in without_effect.items():
            if is_idle:
                raise ValueError(f"{name} has no effect with {self.objective}")

    def _refuse_for_full(self) -> None:
        if self.train == "lora":
            if self.trainable is not None:
                raise ValueError("trainable has no effect with train = 'lora'; use lora_targets, or train = 'full'")
            if self.reference_copy != "device":
                raise ValueError("reference_copy has no effect with train = 'lora', whose reference is no copy")
            return
        if (self.lora_rank, self.lora_alpha, self.lora_targets) != (_DEFAULT_RANK, _DEFAULT_ALPHA, None):
            raise ValueError("lora_rank, lora_alpha and lora_targets have no effect with train = 'full'")
        if self.reference_copy == "cpu" and self.strategy == "fully_shard":
            raise ValueError("reference_copy = 'cpu' has no effect with fully_shard, which cuts the copy up too")

    def _refuse_for_sft(self) -> None:
        if self.shuffle_labels:
            raise ValueError("shuffle_labels has no effect with sft, which reads no labels")
        if self.select == "best_validation" or self.patience:
            raise ValueError("sft has no preference loss to select by; use select = 'last' and patience = 0")
        if self.draws != "fresh":
            raise ValueError("draws are cached for the reference, which sft does not have; use draws = 'fresh'")

    @property
    def window_pairs(self) -> int:
        """Pairs that one optimizer step sees."""
        return self.batch_pairs * self.accumulation
