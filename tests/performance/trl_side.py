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
from tests.performance import sides


class Clock(TrainerCallback):
    """Wall time from the beginning of the epoch to the end of its last step."""

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.started = self.ended = now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = now()


class CountingTrainer(trl.SFTTrainer):
    """Counts the tokens it is given, without padding."""

    counted = 0
    targets = 0

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **more: Any) -> Any:
        there = inputs["attention_mask"] if "attention_mask" in inputs else torch.ones_like(inputs["input_ids"])
        self.counted += int(there.sum())
        self.targets += int((inputs["labels"] != -100).sum())
        return super().training_step(model, inputs, *arguments, **more)


def train(prepared: Path, job: sides.Job) -> sides.Measured:
    """One epoch over the rows in `prepared`, in as many optimiser steps as the workload has, or the nearest fewer."""
    workload, settings = job.workload, dict(job.side.settings)
    rows = sides.rows_of(prepared)
    labels = [[-100] * prompt_length + ids[prompt_length:] for ids, prompt_length in rows]
    dataset = Dataset.from_dict({"input_ids": [ids for ids, _ in rows], "labels": labels})
    bf16 = workload.precision is Precision.bf16
    model_settings = {"attn_implementation": "sdpa", "dtype": torch.float32, **settings.pop("model", {})}
    longest = settings.setdefault("max_length", workload.longest)
    settings.setdefault("per_device_train_batch_size", 1)
    together = settings["per_device_train_batch_size"] * job.side.processes
    count = len(dataset)
    if settings.get("packing"):
        count = len(trl.pack_dataset(dataset, longest, settings.setdefault("packing_strategy", "bfd")))
    steps = len(rows) // workload.global_batch_size
    arguments = trl.SFTConfig(
        output_dir=job.work,
        num_train_epochs=1,
        gradient_accumulation_steps=-(-count // (together * steps)),
        learning_rate=sides.LEARNING_RATE,
        bf16=bf16,
        gradient_checkpointing=workload.gradient_checkpointing,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    model = AutoModelForCausalLM.from_pretrained(Path(job.prepared) / "model", **model_settings)
    clock = Clock()
    trainer = CountingTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(prepared / "tokenizer"),
        callbacks=[clock],
    )
    trainer.train()
    counts = torch.tensor([trainer.counted, trainer.targets], device=arguments.device)
    counted, targets = trainer.accelerator.reduce(counts).tolist()
    return sides.Measured(
        tokens=counted,
        target_tokens=targets,
        seconds=clock.ended - clock.started,
        steps=trainer.state.global_step,
        peak_memory_gib=sides.peak_memory_gib(),
    )


def now() -> float:
    """Wall time, when the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
