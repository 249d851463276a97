"""The training loop of one rank."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reprokit.data import tokens
from reprokit.errors import Interrupted, UserError
from reprokit.recipe.architecture import Architecture, from_config
from reprokit.recipe.schema import OFFICIAL_GPUS, Arithmetic, Recipe
from reprokit.records import provenance
from reprokit.records.files import write_json
from reprokit.records.progress import ProgressBar
from reprokit.records.run_directory import RunDirectory
from reprokit.training import attention, checkpoints, engine, state, telemetry
from reprokit.training.batches import SequenceShard, flatten
from reprokit.training.plan import Pass, Planner, StepPlan, slots
from reprokit.training.schedule import learning_rate
from reprokit.training.telemetry import StepMetrics

Told = Callable[[], str | None]  # name of the signal that told this process to leave, if one did


def train(
    run: RunDirectory, recipe: Recipe, *, rank: int, world_size: int, progress: Path, leaving: Told = lambda: None
) -> None:
    """Train to the end, from the newest resumable state or from step 0, and save every checkpoint the recipe lists.

    The process group must exist. A training that was stopped at any moment and is called again, with the same number
    of ranks, goes on as if it had never stopped. A complete one is left alone.

    Args:
        leaving: asked before each forward pass; when any rank is told to leave, all give up the step that they are at,
            save the state after the last whole one, and leave.

    Raises:
        Interrupted: it left, on all ranks.
        UserError: the training diverges, a state or the disk is damaged or full, a package is missing.
    """
    from transformers import AutoTokenizer

    training = recipe.training
    telemetry.check_packages(training.tensorboard)
    if _agreed(run.training_complete.exists()):
        return
    trainer = Trainer.build(run, recipe, rank, world_size, leaving)
    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer)
    trainer.leave_if_told()
    start = saved = state.resume(run, trainer.engine, recipe, rank, world_size)
    total = trainer.planner.total_steps
    if rank == 0:
        describe(trainer)
        made_by = {**provenance.gather(), "device": device_name(), "world_size": world_size, "resumed_at": start}
        facts = {"arithmetic": training.arithmetic.value, "attention": attention.kernel()}
        write_json(run.provenance, {**made_by, **facts})
        writer = telemetry.Writer(run, training.tensorboard, start)
    watch = telemetry.Watch(state.norms_before(run, start))
    with ProgressBar(total=total, initial=start, desc="train", unit="step", disable=rank != 0, path=progress) as bar:
        for index in range(start, total):
            try:
                metrics = trainer.step(index, watch)
            except Interrupted:
                if saved < index:
                    state.save(run, trainer.engine, recipe, index, rank, world_size)
                raise
            if rank == 0:
                writer.write(metrics)
                bar.set_postfix_str(f"loss {metrics.loss:.3f}, {metrics.tokens_per_second:,.0f} tokens/s", False)
                bar.update()
            if metrics.step in training.checkpoint_steps:
                checkpoints.save(run, trainer.engine.module.model, tokenizer, metrics.step, rank)
            if metrics.step % training.state_every == 0 and metrics.step < total:
                state.save(run, trainer.engine, recipe, metrics.step, rank, world_size)
                saved = metrics.step
    if rank == 0:
        if not run.metrics.exists():
            raise UserError(f"{run.metrics} is gone: the run folder was removed while it was trained")
        write_json(run.training_complete, {"steps": total})
        state.prune(run, keep=0)


def _agreed(said: bool) -> bool:
    """Whether any rank says so. All must call it."""
    flag = torch.tensor(int(said), device=engine.device())
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


@dataclass(frozen=True)
class Trainer:
    """What stays the same from step to step; `engine` is DeepSpeed's around a `TrainedModel`."""

    engine: Any
    dataset: tokens.TokenDataset
    recipe: Recipe
    planner: Planner
    architecture: Architecture | None
    rank: int
    world_size: int
    leaving: Told

    @staticmethod
    def build(run: RunDirectory, recipe: Recipe, rank: int, world_size: int, leaving: Told) -> Trainer:
        dataset = tokens.load(run.data)
        built = engine.build(run.weights(0), recipe.training, world_size)
        architecture = from_config(built.module.model.config.to_dict())
        groups = world_size // recipe.training.sequence_parallel
        planner = Planner(dataset, recipe.training, groups, architecture)
        return Trainer(built, dataset, recipe, planner, architecture, rank, world_size, leaving)

    def leave_if_told(self) -> None:
        """Raises Interrupted on all ranks if any of them was told to leave. All must call it."""
        if _agreed(self.leaving() is not None):
            raise Interrupted(self.leaving() or "another rank")

    def step(self, index: int, watch: telemetry.Watch) -> StepMetrics:
        """Update number `index` (0-based).

        Raises:
            Interrupted: a rank was told to leave. Gradients are dropped, parameters and moments as they were before.
        """
        started = time.perf_counter()
        training = self.recipe.training
        torch.manual_seed(dropout_seed(training.seed, index, self.rank))
        plan = self.planner.step(index)
        rate = learning_rate(training, index, self.planner.total_steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        group, shard = divmod(self.rank, training.sequence_parallel)
        waited, losses = self._accumulate(plan.passes[group], SequenceShard(shard, training.sequence_parallel))
        loss = self._total_loss(plan.passes[group], losses)
        norm = float(self.engine.get_global_grad_norm())
        watch.check(index + 1, loss, norm, lambda: self._rows_in_question(plan, plan.passes[group], losses))
        return self._metrics(index, plan, rate, loss, norm, time.perf_counter() - started, waited)

    def _accumulate(self, passes: list[Pass], shard: SequenceShard) -> tuple[float, torch.Tensor]:
        """All passes of this rank and the update: seconds of waiting for rows, and the loss sum of each pass."""
        waited, losses = 0.0, []
        for number, one in enumerate(passes):
            self.leave_if_told()
            begun = time.perf_counter()
            batch = flatten(self.dataset, one.rows, shard).to(engine.device())
            waited += time.perf_counter() - begun
            self.engine.set_gradient_accumulation_boundary(number == len(passes) - 1)
            loss = self.engine(batch)
            # ZeRO averages over ranks; the objective is the sum over them.
            self.engine.backward(loss * (self.world_size * one.weight), scale_wrt_gas=False)
            self.engine.step()
            losses.append(loss.detach())
        return waited, torch.stack(losses)

    def _total_loss(self, passes: list[Pass], losses: torch.Tensor) -> float:
        """The loss to report, over all ranks."""
        weights = torch.tensor([one.weight for one in passes], dtype=torch.float64, device=losses.device)
        total = (weights * losses.double()).sum()
        torch.distributed.all_reduce(total)
        training = self.recipe.training
        if training.arithmetic is Arithmetic.standard:
            return float(total)
        return float(total) * OFFICIAL_GPUS * training.micro_batch_size / training.global_batch_size

    def _rows_in_question(self, plan: StepPlan, passes: list[Pass], losses: torch.Tensor) -> list[int]:
        """Rows of the passes whose loss is not finite; all rows of the step if it is the gradient. All call it."""
        mine = [
            row for one, loss in zip(passes, losses.tolist(), strict=True) if not np.isfinite(loss) for row in one.rows
        ]
        gathered: list[list[int]] = [[] for _ in range(self.world_size)]
        torch.distributed.all_gather_object(gathered, mine)
        return sorted({row for rows in gathered for row in rows}) or plan.rows.tolist()

    def _metrics(
        self, index: int, plan: StepPlan, rate: float, loss: float, norm: float, seconds: float, waited: float
    ) -> StepMetrics:
        training, lengths = self.recipe.training, np.asarray(self.dataset.lengths)[plan.rows]
        longest, data_seconds, memory = telemetry.slowest(seconds, waited, telemetry.peak_memory_gib())
        tokens_, targets = int(lengths.sum()), int((lengths - self.dataset.prompt_lengths[plan.rows]).sum())
        computed, unused = slots(plan, np.asarray(self.dataset.lengths), training.sequence_parallel)
        peak, mfu = telemetry.peak_flops(), None
        if peak is not None and self.architecture is not None:
            operations = self.architecture.training_flops(tokens_, targets, int((lengths**2).sum()))
            mfu = operations / (longest * self.world_size * peak)
        return StepMetrics(
            step=index + 1,
            epoch=(index + 1) * training.epochs / self.planner.total_steps,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            clipped=norm > training.max_gradient_norm,
            tokens=tokens_,
            target_tokens=targets,
            seconds=longest,
            data_seconds=data_seconds,
            tokens_per_second=tokens_ / longest,
            tokens_per_second_per_gpu=tokens_ / longest / self.world_size,
            mfu=mfu,
            peak_memory_gib=memory,
            padding=unused / computed,
            imbalance=plan.imbalance,
        )


def describe(trainer: Trainer) -> None:
    """Print the arithmetic, and what padding and unequal work will cost over the training."""
    training, total = trainer.recipe.training, trainer.planner.total_steps
    plans = [trainer.planner.step(index) for index in range(total // training.epochs)]
    lengths = np.asarray(trainer.dataset.lengths)
    counted = np.array([slots(plan, lengths, training.sequence_parallel) for plan in plans]).sum(axis=0)
    passes = np.mean([len(plan.passes[0]) for plan in plans])
    print(
        f"{training.arithmetic.value} arithmetic, {total} steps; on each of {len(plans[0].passes)} data-parallel "
        f"groups {passes:.1f} forward passes per step. {1 - counted[1] / counted[0]:.2%} of the computed positions "
        f"hold tokens; waiting for the rank with most work costs {np.mean([plan.imbalance for plan in plans]):.1%}. "
        f"Attention: {attention.kernel()}.",
        flush=True,
    )


def dropout_seed(seed: int, index: int, rank: int) -> int:
    """Seed of one rank and step: what dropout draws depends on nothing that a resumed training would not know."""
    return int(np.random.SeedSequence((seed, index, rank)).generate_state(1)[0])


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
