"""GPU-hours and wall time of each stage of a run, and the limits of the profile that they run into."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from reprokit.campaign import engines, generation
from reprokit.campaign.cells import by_step
from reprokit.campaign.generation import Load
from reprokit.campaign.memory import ELEMENT, ModelSize
from reprokit.campaign.rates import START_HOURS, Rates
from reprokit.campaign.work import Work
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.recipe.judges import JUDGES, JudgeKind
from reprokit.recipe.schema import Recipe
from reprokit.records.result import Cell

CHAT_REPLY = 500  # tokens of a chat judge's reply, whose limit is far above


@dataclass(frozen=True)
class TooLong:
    """A job that is expected to take more hours than the profile gives it."""

    hours: float
    limit: float


@dataclass
class Hours:
    """Of one run, by stage: GPU-hours that its jobs hold, hours that it takes, and jobs that will be stopped."""

    gpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    too_long: dict[str, TooLong] = field(default_factory=dict)

    def note(self, stage: str, longest: float, resources: Resources) -> None:
        """Note that the longest job of a stage takes `longest` hours."""
        if longest > resources.hours:
            self.too_long[stage] = TooLong(longest, resources.hours)


@dataclass(frozen=True)
class Estimator:
    """Hours of the stages of one recipe on one profile."""

    recipe: Recipe
    profile: ClusterProfile
    model: ModelSize
    rates: Rates

    def of(self, work: Work, operations: float, loads: dict[Cell, Load]) -> Hours:
        """`operations`: of the training that is left; `loads`: of every cell that is generated or judged."""
        hours = Hours()
        if work.trains:
            self._train(hours, operations)
        if work.cells:
            self._evaluate(hours, work.cells, loads)
        if work.judges:
            self._judge(hours, work.judges, loads)
        return hours

    def _train(self, hours: Hours, operations: float) -> None:
        resources = self.profile.train
        gpus = gpus_of(resources)
        taken = START_HOURS + operations / (gpus * self.rates.training) / 3600
        hours.gpu["train"], hours.wall["train"] = taken * gpus, taken
        hours.note("train", taken, resources)

    def _evaluate(self, hours: Hours, cells: Sequence[Cell], loads: dict[Cell, Load]) -> None:
        resources, element = self.profile.evaluate, ELEMENT[self.recipe.training.precision]
        per_engine = engines.gpus_per_engine(self.recipe, self.profile)
        size = generation.engine_size(self.model, per_engine, element)
        beside = max(1, gpus_of(resources) // per_engine)
        elements = []
        for group in by_step(cells, self.profile.checkpoints_per_element):
            steps = by_step(group, 1)
            work = (sum((loads[cell] for cell in checkpoint), Load()) for checkpoint in steps)
            elements.append(
                START_HOURS + sum(generation.seconds(load, size, beside, self.rates) for load in work) / 3600
            )
        at_a_time = 1 if self.profile.scheduler is Scheduler.local else self.profile.max_parallel
        hours.gpu["evaluate"], hours.wall["evaluate"] = sum(elements) * gpus_of(resources), spread(elements, at_a_time)
        hours.note("evaluate", max(elements), resources)

    def _judge(self, hours: Hours, judges: dict[str, list[Cell]], loads: dict[Cell, Load]) -> None:
        """Judges run one after the other, each on every GPU of one node."""
        gpus = max(1, self.profile.evaluate.gpus_per_node)
        taken = 0.0
        for key, cells in judges.items():
            judge = JUDGES[key]
            reply = CHAT_REPLY if judge.kind is JudgeKind.chat else judge.max_tokens
            read = sum(loads[cell].tokens + loads[cell].prompt_tokens + loads[cell].responses * reply for cell in cells)
            taken += START_HOURS + 2.0 * judge.parameters * read / (gpus * self.rates.prefill) / 3600
        hours.gpu["judge"], hours.wall["judge"] = taken * gpus, taken


def gpus_of(resources: Resources) -> int:
    """GPUs of a job, at least one."""
    return max(1, resources.nodes * resources.gpus_per_node)


def spread(hours: Sequence[float], at_a_time: int) -> float:
    """Hours until the last of some jobs ends, which are begun in this order, `at_a_time` of them beside each other."""
    ends = [0.0] * max(1, min(at_a_time, len(hours)))
    for taken in hours:
        heapq.heapreplace(ends, ends[0] + taken)
    return max(ends)
