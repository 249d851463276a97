"""Resumable state of a training: what ZeRO-3 holds of every trained parameter, in safetensors, without pickle.

runs/<run>/state/step_000040/
  rank_000_of_008.safetensors   flat partitions of this rank: `master/<parameter>`, `exp_avg/...`, `exp_avg_sq/...`;
                                rank_000_of_008-00001-of-00004.safetensors and so on where one file would be too large
  state.json                    number of ranks, of updates, and what must be the same when the training goes on
  manifest.json                 sizes and sha256 of the others; last

There is no state of random number generators: the loop seeds them for each step, rank and training.seed when the step
begins. Nor is there a position in the data, which follows from the step. A parameter's partitions, one rank after the
other, are its elements and then padding, so that any number of ranks can read what any other has written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open

from reprokit.data import tokens
from reprokit.errors import UserError
from reprokit.recipe.fixed import changes, fixed_training
from reprokit.recipe.schema import Recipe, TrainingSection
from reprokit.records import interrupted, manifest
from reprokit.records.files import read_json, read_json_lines, sync, write_json
from reprokit.records.run_directory import RunDirectory
from reprokit.training.shards import TensorPlan, write_shards

KEPT = 2  # states, the newest
MASTER, MOMENTS = "master", ("exp_avg", "exp_avg_sq")


class StateInfo(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`state.json`: number of ranks, AdamW's count of updates, and what must not change.

    training: settings of the recipe; arrays: sha256 of the tokenised rows; shapes: of the trained parameters.
    """

    world_size: int
    updates: int
    training: dict[str, Any]
    arrays: dict[str, str]
    shapes: dict[str, list[int]]


class _Norm(msgspec.Struct):
    """The fields of a line of metrics that are looked at here."""

    step: int
    gradient_norm: float


def save(run: RunDirectory, engine: Any, recipe: Recipe, step: int, rank: int, world_size: int) -> None:
    """Save the state of the DeepSpeed engine after `step` steps and remove all but the last states.

    All ranks must call it, after the checkpoint of the same step: a training that goes on from a state does not save
    the checkpoints up to it again.

    Raises:
        UserError: the disk is full or the folder cannot be written; no state of this step is left then.
    """
    final = run.state(step)
    plan = _plan(engine)
    needed = world_size * sum(tensor.bytes for tensor in plan)
    with manifest.draft(final, step, needed) if rank == 0 else manifest.joined_draft(final, needed) as made:
        torch.distributed.barrier()  # the folder is there
        files = write_shards(
            made.folder, plan, _partitions(engine), f"{_rank_name(rank, world_size)}{{suffix}}.safetensors"
        )
        mine = {name: manifest.entry(made.folder / name) for name in files}
        of_ranks = _of_ranks(mine, world_size)
        if rank == 0:
            for entries in of_ranks:
                made.files.update(entries)
            write_json(made.folder / "state.json", _info(run, engine, recipe.training, world_size))
            if run.metrics.exists():
                sync(run.metrics)  # no state without the metrics of its steps
    if rank == 0:
        prune(run, KEPT)


def prune(run: RunDirectory, keep: int) -> None:
    """Remove all states but the `keep` newest."""
    for step in run.states()[keep:]:
        manifest.remove(run.state(step))


def resume(run: RunDirectory, engine: Any, recipe: Recipe, rank: int, world_size: int) -> int:
    """Go on where an interrupted training stopped; returns the step after which that is, 0 to begin anew.

    The newest whole state is loaded into the DeepSpeed engine, fresh from `engine.build`, and the run folder made as it
    was then: later checkpoints, results and metrics are set aside. All ranks must call it.

    Raises:
        UserError: the state is of another model, other data or other settings.
    """
    step = latest(run, rank, world_size) or 0
    if step:
        load(run, engine, recipe, step, rank, world_size)
    if rank == 0:
        interrupted.remove_leftovers(run)
        interrupted.set_aside_after(run, step)
        interrupted.trim_metrics(run, step)
        if step:
            print(f"training resumes at step {step}", flush=True)
    torch.distributed.barrier()
    return step


def norms_before(run: RunDirectory, step: int) -> list[float]:
    """Gradient norms of the steps up to `step`, oldest first, as far as the metrics have them."""
    if not run.metrics.exists():
        return []
    lines = read_json_lines(run.metrics, _Norm)
    return [line.gradient_norm for line in lines if line.step <= step]


def latest(run: RunDirectory, rank: int, world_size: int) -> int | None:
    """The step of the newest state that is whole, read to the last byte; damaged ones are named on stdout.

    All ranks must call it: they share the reading, and take the same whatever a network file system shows to each.
    """
    listed = _of_ranks(run.states(), world_size)
    for step in sorted(set().union(*listed), reverse=True):
        found = _of_ranks(_damage(run.state(step), rank, world_size), world_size)
        reason = next((one for one in found if one is not None), None)
        if reason is None:
            return step
        if rank == 0:
            print(f"the state of step {step} is damaged and passed over: {reason}", flush=True)
            print("results of later steps are set aside: launch again after this run to fill them in", flush=True)
    return None


def _of_ranks(mine: Any, world_size: int) -> list[Any]:
    """What every rank has to say. All must call it."""
    said: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(said, mine)
    return said


def _damage(folder: Path, rank: int, world_size: int) -> str | None:
    """What is wrong with a state: with the sizes of all files, and the content of those that this rank reads."""
    if (flaw := manifest.flaw(folder)) is not None:
        return flaw
    names = sorted(read_json(folder / manifest.NAME, manifest.Manifest).files)
    return manifest.changed(folder, names[rank::world_size])


def load(run: RunDirectory, engine: Any, recipe: Recipe, step: int, rank: int, world_size: int) -> None:
    """Bring the DeepSpeed engine, fresh from `engine.build`, to the state after `step` steps. All ranks must call it.

    Parameters, master weights, moments and the count of updates are then those of the training that was saved, bit for
    bit, whatever its number of ranks.

    Raises:
        UserError: the state is of another model, other data or other settings.
    """
    folder = run.state(step)
    saved = read_json(folder / "state.json", StateInfo)
    _check(folder, saved, _info(run, engine, recipe.training, world_size))
    zero = engine.optimizer
    zero.checkpoint_event_prologue()  # nothing stays gathered with the values of before
    _make_moments(zero, saved.updates)
    with ExitStack() as stack:
        readers = _Readers(folder, saved.world_size, stack)
        for name, parameter in _trained(engine):
            _fill(parameter, name, readers, rank)
    zero.checkpoint_event_epilogue()


def _fill(parameter: Any, name: str, readers: _Readers, rank: int) -> None:
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    size = parameter.ds_tensor.ds_numel
    master = readers.slice(f"{MASTER}/{name}", parameter.ds_numel, rank * size, size)
    safe_set_local_fp32_param(parameter, master)
    parameter.ds_tensor.data.copy_(master)
    for moment in MOMENTS:
        values = readers.slice(f"{moment}/{name}", parameter.ds_numel, rank * size, size)
        safe_set_local_optimizer_state(parameter, values, moment)


class _Readers:
    """The files of a state, opened once; only what is asked for is read."""

    def __init__(self, folder: Path, world_size: int, stack: ExitStack) -> None:
        self.world_size = world_size
        self.by_rank: list[dict[str, Any]] = []
        for rank in range(world_size):
            of_tensor: dict[str, Any] = {}
            for path in sorted(folder.glob(f"{_rank_name(rank, world_size)}*.safetensors")):
                reader = stack.enter_context(safe_open(path, framework="pt"))
                of_tensor |= dict.fromkeys(reader.keys(), reader)
            self.by_rank.append(of_tensor)

    def slice(self, name: str, count: int, start: int, size: int) -> torch.Tensor:
        """Elements `start` to `start + size` of a tensor of `count` elements, zeros from its end on: [size]."""
        saved_size = -(-count // self.world_size)
        end = min(start + size, count)
        pieces = []
        for rank, readers in enumerate(self.by_rank):
            first = rank * saved_size
            low, high = max(start, first), min(end, first + saved_size)
            if low < high:
                pieces.append(readers[name].get_slice(name)[low - first : high - first])
        if not pieces:
            pieces.append(self.by_rank[0][name].get_slice(name)[:0])
        padding = size - sum(len(piece) for piece in pieces)
        return torch.cat([*pieces, pieces[0].new_zeros(padding)])


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    return ((name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad)


def _plan(engine: Any) -> list[TensorPlan]:
    dtype = engine.optimizer.fp32_partitioned_groups_flat[0].dtype  # bf16 where not even master weights are fp32
    return [
        TensorPlan(f"{kind}/{name}", (parameter.ds_tensor.ds_numel,), dtype)
        for name, parameter in _trained(engine)
        for kind in (MASTER, *MOMENTS)
    ]


def _partitions(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """This rank's part of everything, tensor by tensor, copied to the CPU."""
    from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

    for name, parameter in _trained(engine):
        yield f"{MASTER}/{name}", safe_get_local_fp32_param(parameter).detach().to("cpu", copy=True)
        for moment in MOMENTS:
            yield f"{moment}/{name}", safe_get_local_optimizer_state(parameter, moment).to("cpu", copy=True)


def _make_moments(zero: Any, updates: int) -> None:
    """What torch's AdamW makes in its first step, for `updates` steps: ZeRO-3 flattens parameters into few tensors."""
    fused = zero.param_groups[0]["fused"]
    for flat in zero.fp32_partitioned_groups_flat:
        count = torch.tensor(float(updates), device=flat.device if fused else "cpu")
        zero.state[flat] = {"step": count, **{moment: torch.zeros_like(flat) for moment in MOMENTS}}


def _info(run: RunDirectory, engine: Any, training: TrainingSection, world_size: int) -> StateInfo:
    zero = engine.optimizer
    moments = zero.state.get(zero.fp32_partitioned_groups_flat[0], {})
    return StateInfo(
        world_size=world_size,
        updates=int(moments.get("step", 0)),
        training=fixed_training(training),
        arrays=tokens.load(run.data).report.arrays,
        shapes={name: list(parameter.ds_shape) for name, parameter in _trained(engine)},
    )


def _check(folder: Path, saved: StateInfo, now: StateInfo) -> None:
    """Raises UserError when `now` is not what the state in `folder` was made with."""
    found = changes(saved.training, now.training, "training.{}")
    found += changes(saved.arrays, now.arrays, "sha256 of {}")
    found += changes(saved.shapes, now.shapes, "shape of {}")
    if found:
        raise UserError(
            "\n".join([f"the training cannot go on from {folder}, which was made with others of these:", *found[:10]])
            + "\nGive the changed run its own name (name=...), or move the folder away to train from the start."
        )


def _rank_name(rank: int, world_size: int) -> str:
    return f"rank_{rank:03d}_of_{world_size:03d}"
