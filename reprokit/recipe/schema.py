"""What a run is: one dataclass per component of a recipe.

Every key of a YAML recipe is a field here. Defaults are the paper's (Table 3 and Section 2.1) unless a
comment says otherwise; `MISSING` fields have no sensible default and must be given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from omegaconf import MISSING

OFFICIAL_GPUS = 8  # of the official code, whose arithmetic depends on their number


class Schedule(Enum):
    """Learning-rate schedule after the linear warm-up."""

    cosine = "cosine"
    constant = "constant"


class Arithmetic(Enum):
    """How token losses, gradients and parameters are added up and rounded.

    official: that of the official code on 8 GPUs, quirks included (docs of `reprokit.training.plan` and `.engine`).
    standard: mean over all target tokens of the global batch, fp32 master weights, rows shuffled with a seed.
    """

    official = "official"
    standard = "standard"


class Precision(Enum):
    """Number format of parameters and activations during training."""

    bf16 = "bf16"
    fp32 = "fp32"

    @property
    def dtype(self) -> str:
        """Its name in torch and vLLM."""
        return {"bf16": "bfloat16", "fp32": "float32"}[self.value]


@dataclass
class ModelSection:
    """The base model: exactly one of `path`, `hub_id`, `config`."""

    name: str = MISSING  # as it appears in records and figures
    path: Optional[str] = None  # Hugging Face model folder
    hub_id: Optional[str] = None  # Hugging Face Hub id
    revision: Optional[str] = None  # commit of hub_id
    config: Optional[dict[str, Any]] = None  # fields of a transformers config, with model_type: random weights
    tokenizer: Optional[str] = None  # folder or hub id; default: the model's own
    tokenizer_vocab_size: Optional[int] = None  # with config: train a byte-level BPE of this size on the data
    chat_template: Optional[str] = None  # file with a Jinja chat template; default: the tokenizer's own
    shape: Optional[dict[str, Any]] = None  # fields of the config.json of hub_id, for planning before it is fetched
    seed: int = 0  # of the random weights


@dataclass
class DataSection:
    """The training rows (columns `message`, `response`): exactly one of `path`, `hub_id`, `generator`."""

    name: str = MISSING  # as it appears in records and figures
    path: Optional[str] = None  # .parquet or .jsonl
    hub_id: Optional[str] = None  # Hugging Face Hub data set id
    revision: Optional[str] = None
    file: Optional[str] = None  # file inside the hub data set
    sha256: Optional[str] = None  # of the file
    generator: Optional[str] = None  # procedural rows, made by this kit
    rows: Optional[int] = None  # number of rows: required with generator, checked otherwise
    subset: Optional[int] = None  # train on so many of the rows, drawn at random with `seed`, in the order of the file
    max_length: int = 20000  # tokens of prompt + response; longer rows are cut on the right
    mean_length: Optional[int] = None  # tokens of a row, for planning before the rows are there
    seed: int = 0  # of the generator and of the subset


@dataclass
class TrainingSection:
    """Full-parameter SFT with AdamW under DeepSpeed ZeRO-3."""

    arithmetic: Arithmetic = Arithmetic.standard
    learning_rate: float = MISSING
    epochs: int = MISSING
    global_batch_size: int = MISSING  # rows per optimiser step, over all ranks
    micro_batch_size: int = 4  # official arithmetic: rows whose tokens share one mean
    micro_batch_tokens: Optional[int] = None  # most in a forward pass; default: data.max_length; official: no limit
    schedule: Schedule = Schedule.cosine
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    epsilon: float = 1.0e-8
    max_gradient_norm: float = 1.0
    precision: Precision = Precision.bf16
    gradient_checkpointing: bool = True
    cpu_offload: bool = False  # optimizer states in the memory of the host
    sequence_parallel: int = 1  # GPUs that share every row (DeepSpeed Ulysses)
    checkpoint_steps: list[int] = MISSING  # optimiser steps; step 0, the base, is always evaluated
    state_every: int = 40  # optimiser steps between resumable states, of which the last two are kept
    tensorboard: bool = False  # also write train/tensorboard/
    seed: int = 0  # of the row order in standard arithmetic; official keeps the order of the file


@dataclass
class BenchmarkSection:
    """One benchmark of a recipe; an unset sampling field takes the value of `evaluation`, then the official code's."""

    items: Optional[int] = None  # number of problems; default: all that the benchmark has
    samples: Optional[int] = None  # k of avg@k
    temperature: Optional[float] = None
    top_p: Optional[float] = None
    top_k: Optional[int] = None
    presence_penalty: Optional[float] = None
    frequency_penalty: Optional[float] = None
    max_tokens: Optional[int] = None
    context: Optional[int] = None  # prompt + response
    path: Optional[str] = None  # file in its upstream form, or a folder of such files; default: from the hub
    revision: Optional[str] = None  # commit of the hub data set


@dataclass
class PublishedSection:
    """Trained checkpoints that the authors released, in folders `stepN`: at most one of `path`, `hub_id`."""

    path: Optional[str] = None  # folder with the folders stepN
    hub_id: Optional[str] = None
    revision: Optional[str] = None  # commit of hub_id


@dataclass
class JudgeSection:
    """One judge model: at most one of `path`, `hub_id`, `endpoint`, `config`; default: see `reprokit.recipe.judges`."""

    path: Optional[str] = None  # Hugging Face model folder
    hub_id: Optional[str] = None
    revision: Optional[str] = None  # commit of hub_id
    endpoint: Optional[str] = None  # base URL of an OpenAI-compatible server, for a chat judge
    model: Optional[str] = None  # name of the model at the endpoint
    api_key_variable: str = "OPENAI_API_KEY"  # environment variable that holds the key of the endpoint
    prompt: Optional[str] = None  # file with the question of a chat judge; default: our own wording
    config: Optional[dict[str, Any]] = None  # fields of a transformers config: random weights, to try things out


@dataclass
class EvaluationSection:
    """vLLM generation and scoring of every saved checkpoint; unset sampling fields are the official code's."""

    temperature: Optional[float] = None
    top_p: Optional[float] = None
    max_tokens: Optional[int] = None  # of the response
    max_model_length: Optional[int] = None  # prompt + response; default: the model's own context length
    seed: int = 1234
    requests_at_a_time: Optional[int] = None  # in an engine; 1: responses do not depend on each other; default: vLLM's
    steps: Optional[list[int]] = None  # which checkpoints are evaluated, 0 for the base; default: all
    benchmarks: dict[str, BenchmarkSection] = MISSING  # name: false takes one back that was included
    judges: dict[str, JudgeSection] = field(default_factory=dict)  # where they are not the default ones


class Source(Enum):
    """Where the checkpoints of a run come from.

    training: the run trains them. published: they are those of `published`, trained as `data` and `training` say.
    model: the model itself is all there is; `data` and `training` are not used.
    """

    training = "training"
    published = "published"
    model = "model"


@dataclass
class Recipe:
    """One run: a base model, a data set, a training and an evaluation."""

    name: str = MISSING  # of the run and its folder
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    published: PublishedSection = field(default_factory=PublishedSection)
    source: Source = Source.training
