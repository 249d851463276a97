"""Whether a recipe fits the machines of a cluster profile, told before the queue; if not, what to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from reprokit.campaign.memory import MemoryEstimate, ModelSize, estimate, longest_pass, memory_here, model_size
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.errors import UserError
from reprokit.recipe.derived import is_all_bf16
from reprokit.recipe.schema import Arithmetic, Recipe, TrainingSection

USABLE = 0.95  # of a memory, the rest being what a process cannot have; a "GB" of a GPU is nearly a GiB
MOST_NODES = 64  # that a remedy may ask for
MOST_GROUPS = 1024  # data-parallel groups that a message goes up to


@dataclass(frozen=True)
class Setup:
    """What decides whether a training fits.

    `gpu_gib`: memory of a GPU, None if there are none. `here_gib`: memory of this machine, which is the only one if
    `local`.
    """

    model: ModelSize
    training: TrainingSection
    resources: Resources
    longest_row: int
    gpu_gib: float | None
    local: bool
    here_gib: float

    @property
    def memory(self) -> MemoryEstimate:
        return estimate(self.model, self.training, self.resources, self.gpu_gib is not None, self.longest_row)

    @property
    def node_gib(self) -> float | None:
        """Memory of a node, None where it is not known."""
        return self.resources.memory_gb or (self.here_gib if self.local else None)

    def fits(self) -> bool:
        memory = self.memory
        if self.gpu_gib is not None:
            host_fits = self.node_gib is None or memory.host <= USABLE * self.node_gib
            return memory.rank <= USABLE * self.gpu_gib and host_fits
        there, sharing = self.cpu_memory()
        return sharing * memory.rank <= USABLE * there

    def cpu_memory(self) -> tuple[float, int]:
        """Without GPUs: GiB that there are, and how many ranks share them."""
        if self.resources.memory_gb is not None:
            return self.resources.memory_gb, self.resources.tasks_per_node
        return self.here_gib, self.resources.tasks


def setup_of(recipe: Recipe, profile: ClusterProfile) -> Setup | None:
    """None if the size of the model is not known."""
    model = model_size(recipe.model)
    if model is None:
        return None
    here = memory_here()
    local = profile.scheduler is Scheduler.local
    longest_row = recipe.data.max_length
    return Setup(model, recipe.training, profile.train, longest_row, profile.gpu_memory_gb, local, here)


def summary(recipe: Recipe, profile: ClusterProfile) -> str | None:
    """One line on the memory that training needs; None if the size of the model is not known."""
    setup = setup_of(recipe, profile)
    if setup is None:
        return None
    memory, ranks = setup.memory, setup.resources.tasks
    each, there = ("GPU", f" of {setup.gpu_gib:g} GB") if setup.gpu_gib is not None else ("process", "")
    host = f", {_gib(memory.host)} of memory in every node" if memory.host else ""
    activations = _gib(memory.activations) if setup.model.architecture else "unknown"
    return (
        f"memory: about {_gib(memory.rank)}{there} on each {each} (estimate: states {_gib(memory.states)}, activations "
        f"{activations}, buffers {_gib(memory.buffers)}, peak {_gib(memory.peak[0])}), {_gib(ranks * memory.rank)} on "
        f"all {ranks}{host}"
    )


def _gib(size: float) -> str:
    return f"{size:,.0f} GiB" if size >= 10 else f"{size:.1f} GiB" if size >= 1 else f"{size * 1024:,.0f} MiB"


def check_fits(recipe: Recipe, profile: ClusterProfile, where: str) -> None:
    """Compare the memory that training needs with what there is.

    Args:
        where: the cluster profile's name, for the message.

    Raises:
        UserError: it does not fit; the message has the parts, and settings with which it does.
    """
    setup = setup_of(recipe, profile)
    if setup is None or setup.fits():
        return
    lines = [f"recipe {recipe.name} does not fit cluster={where}, as far as can be estimated before it runs."]
    lines += [*_needs(setup), *_has(setup), *_advice(setup, profile)]
    raise UserError("\n".join(lines))


def _needs(setup: Setup) -> Iterator[str]:
    memory, count = setup.memory, setup.model.parameters / 1e9  # as model cards count
    peak, moment = memory.peak
    rank = "GPU" if setup.gpu_gib is not None else "process"
    yield f"  It needs: about {memory.rank:,.1f} GiB on every {rank}, to train all {count:.3g} billion parameters:"
    if setup.model.architecture is None:
        yield "    (without activations and loss: the sizes of the model are not known)"
    yield f"    {memory.states:8,.1f}  parameters, gradients and optimizer states"
    yield f"    {memory.activations:8,.1f}  activations kept of {memory.tokens:,} tokens"
    yield f"    {memory.buffers:8,.1f}  gathered parameters, buffers, runtime"
    yield f"    {peak:8,.1f}  at the peak: {moment}"
    if memory.host:
        yield f"    and {memory.host:,.0f} GiB in the memory of every node, for what is offloaded"


def _has(setup: Setup) -> Iterator[str]:
    if setup.gpu_gib is None:
        there, sharing = setup.cpu_memory()
        yield f"  There is: no GPU, {there:.0f} GiB of memory for {sharing} processes; {USABLE:.0%} of it can be used"
        return
    gpus = setup.resources.nodes * setup.resources.gpus_per_node
    of_node = f", {setup.node_gib:,.0f} GiB of memory in a node" if setup.memory.host and setup.node_gib else ""
    yield f"  There is: {gpus} x {setup.gpu_gib:g} GB of GPU memory{of_node}; {USABLE:.0%} of it can be used"


def _advice(setup: Setup, profile: ClusterProfile) -> Iterator[str]:
    found = remedies(setup)
    if not found:
        more = "" if setup.local else f", nor would up to {MOST_NODES} nodes"
        yield f"  No setting would make it fit{more}: it takes more memory or a smaller model."
        return
    yield "  With one of these it fits:"
    for remedy in found:
        yield f"    {remedy}"


@dataclass(frozen=True)
class Remedy:
    """A changed setup that fits; `changes`: key -> value, where `train.nodes` is one of the cluster profile."""

    setup: Setup
    changes: dict[str, str]

    def __str__(self) -> str:
        words = [f"{key}={value}" for key, value in self.changes.items() if key != "train.nodes"]
        if nodes := self.changes.get("train.nodes"):
            words.append(f"train.nodes: {nodes} in the cluster profile")
        memory = self.setup.memory
        host = f", and {memory.host:,.0f} GiB of memory in every node" if memory.host else ""
        return f"{' and '.join(words)}  (about {memory.rank:,.1f} GiB{host})"


def remedies(setup: Setup) -> list[Remedy]:
    """Up to two ways to make a training fit: those with the fewest nodes first, of these with the fewest changes.

    Every one is a setup that `fits` and whose ranks can share the batch; none only adds to the other's changes.
    """
    options = list(_options(setup).items())
    found: list[Remedy] = []
    for nodes in [setup.resources.nodes] if setup.local else range(setup.resources.nodes, MOST_NODES + 1):
        grown = replace(setup, resources=replace(setup.resources, nodes=nodes))
        more = {"train.nodes": str(nodes)} if nodes > setup.resources.nodes else {}
        for size in range(len(options) + 1):
            for chosen in combinations(options, size):
                keys = {*more, *(f"training.{key}" for key, _ in chosen)}
                if any(keys >= remedy.changes.keys() or keys <= remedy.changes.keys() for remedy in found):
                    continue
                if remedy := _mildest(grown, more, dict(chosen)):
                    found.append(remedy)
                    if len(found) == 2:
                        return found
    return found


def _mildest(setup: Setup, changes: dict[str, str], options: dict[str, list[bool | int]]) -> Remedy | None:
    """The first combination of values with which the setup fits."""
    for values in product(*options.values()):
        chosen: dict[str, Any] = dict(zip(options, values, strict=True))
        changed = replace(setup, training=replace(setup.training, **chosen))
        if changed.fits() and share_problem(changed.training, changed.resources) is None:
            written = {f"training.{key}": str(value).lower() for key, value in chosen.items()}
            return Remedy(changed, {**written, **changes})
    return None


def _options(setup: Setup) -> dict[str, list[bool | int]]:
    """Values that other settings may take, mildest first."""
    training = setup.training
    options: dict[str, list[bool | int]] = {}
    if not training.gradient_checkpointing:
        options["gradient_checkpointing"] = [True]
    tokens, row = longest_pass(training, setup.longest_row, setup.resources.tasks), setup.longest_row
    if tokens > row:
        options["micro_batch_tokens"] = [*(t for t in (tokens // 2, tokens // 4, tokens // 8) if t > row), row]
    wider = [size for size in (2, 4, 8) if size > training.sequence_parallel and _can_share_rows(setup, size)]
    if wider:
        options["sequence_parallel"] = [*wider]
    if setup.gpu_gib is not None and not training.cpu_offload and not is_all_bf16(training):
        options["cpu_offload"] = [True]
    return options


def _can_share_rows(setup: Setup, size: int) -> bool:
    shape = setup.model.architecture
    return shape is not None and shape.heads % size == 0 and setup.resources.tasks_per_node % size == 0


def check_shares(recipe: Recipe, profile: ClusterProfile, where: str) -> None:
    """Raises UserError when the ranks of the profile cannot share rows and the global batch."""
    if problem := share_problem(recipe.training, profile.train):
        raise UserError(
            f"cluster={where} has {profile.train.tasks} ranks for training, {profile.train.tasks_per_node} on each "
            f"node. {problem}; change train.nodes or train.tasks_per_node in the profile, or the recipe"
        )


def share_problem(training: TrainingSection, resources: Resources) -> str | None:
    """Why the ranks cannot share rows and the global batch, with valid numbers; None if they can."""
    batch, size, together = training.global_batch_size, training.micro_batch_size, training.sequence_parallel
    if resources.tasks_per_node % together:
        valid = _joined(n for n in range(1, resources.tasks_per_node + 1) if resources.tasks_per_node % n == 0)
        return f"training.sequence_parallel={together} must divide the ranks of a node; valid: {valid}"
    groups = resources.tasks // together
    if training.arithmetic is Arithmetic.standard:
        if groups <= batch:
            return None
        return f"training.global_batch_size={batch} is enough for at most {batch * together} ranks"
    if _shares_micro_batches(training, groups):
        return None
    valid = _joined(n * together for n in range(1, MOST_GROUPS + 1) if _shares_micro_batches(training, n))
    return (
        f"In official arithmetic they must share {batch // size} micro-batches (training.global_batch_size={batch} / "
        f"training.micro_batch_size={size}) or their rows equally; valid numbers of ranks: {valid}"
    )


def _shares_micro_batches(training: TrainingSection, groups: int) -> bool:
    """Whether every data-parallel group gets as many micro-batches, or as many rows of one, as the others."""
    micro_batches = max(1, training.global_batch_size // training.micro_batch_size)
    if micro_batches % groups == 0:
        return True
    return groups % micro_batches == 0 and training.micro_batch_size % (groups // micro_batches) == 0


def _joined(numbers: Iterator[int]) -> str:
    return ", ".join(map(str, numbers))
