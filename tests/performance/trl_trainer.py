"""TRL's SFTTrainer on a prepared workload."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from reprokit.recipe.schema import Precision
from reprokit.records.run_directory import RunDirectory
from reprokit.training.telemetry import peak_memory_gib
from tests.performance import worker
from tests.performance.sides import Job, Measured
from tests.performance.workload import rows_of


class Clock(TrainerCallback):
    """Wall time from the beginning of the epoch to the end of its last step."""

    started = ended = 0.0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.started = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = _now()


class CountingTrainer(trl.SFTTrainer):
    """Counts the tokens and targets that it is given, without padding."""

    tokens = targets = 0

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **more: Any) -> Any:
        mask = inputs["attention_mask"] if "attention_mask" in inputs else None
        self.tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        self.targets += int((inputs["labels"] != -100).sum())
        return super().training_step(model, inputs, *arguments, **more)


def train(run: RunDirectory, job: Job) -> Measured:
    """One epoch over the rows of `run`, in as many optimiser steps as they have global batches.

    Packed rows come in fewer and fuller batches, of which one step then takes fewer; where they cannot be shared out
    evenly there are fewer steps. Several processes compute, and count, a pack twice if the packs do not divide by them.
    """
    workload, settings = job.workload, dict(job.side.settings)
    rows = rows_of(run)
    labels = [[-100] * prompt_length + ids[prompt_length:] for ids, prompt_length in rows]
    dataset = Dataset.from_dict({"input_ids": [ids for ids, _ in rows], "labels": labels})
    model = AutoModelForCausalLM.from_pretrained(
        Path(job.prepared) / "model",
        **{"attn_implementation": "sdpa", "dtype": torch.float32, **settings.pop("model", {})},
    )
    settings = {
        "per_device_train_batch_size": 1,
        "max_length": workload.longest,  # shorter ones would cut rows
        "gradient_checkpointing": False,
        "bf16": workload.precision is Precision.bf16,
        **settings,
    }
    steps = len(rows) // workload.global_batch_size
    at_once = settings["per_device_train_batch_size"] * job.side.processes
    clock = Clock()
    trainer = CountingTrainer(
        model=model,
        args=trl.SFTConfig(
            output_dir=job.work,
            num_train_epochs=1,
            gradient_accumulation_steps=-(-_examples(dataset, settings) // (at_once * steps)),
            learning_rate=worker.LEARNING_RATE,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(run.tokenizer),
        callbacks=[clock],
    )
    trainer.train()
    counts = torch.tensor([trainer.tokens, trainer.targets], device=worker.device())
    tokens, targets = trainer.accelerator.reduce(counts).tolist()
    return Measured(
        tokens=tokens,
        target_tokens=targets,
        seconds=clock.ended - clock.started,
        steps=trainer.state.global_step,
        peak_memory_gib=peak_memory_gib(),
    )


def _examples(dataset: Dataset, settings: dict[str, Any]) -> int:
    """Rows, or packs of rows, in an epoch."""
    if not settings.get("packing"):
        return len(dataset)
    return len(trl.pack_dataset(dataset, settings["max_length"], settings["packing_strategy"]))


def _now() -> float:
    """Wall time, when the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
