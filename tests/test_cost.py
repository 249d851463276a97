"""What a run costs, told before it: estimates by hand, what wins over a default, and what is not known."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reprokit import benchmarks
from reprokit.campaign.cost import Cost, cost, header, rounded, total
from reprokit.campaign.generation import EngineSize, Load, bytes_read, in_flight, load_of, seconds
from reprokit.campaign.graph import Workspace, plan
from reprokit.campaign.hours import spread
from reprokit.campaign.lengths import LIMIT, UNTRAINED, USUAL
from reprokit.campaign.rates import DECODING_MBU, PREFILL_MFU, START_HOURS, TRAINING_MFU, Rates, rates_of
from reprokit.campaign.report import print_cost
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.cluster.profiles import load_profile
from reprokit.data.report import Histogram, Report
from reprokit.errors import UserError
from reprokit.recipe import load
from reprokit.recipe.gpus import GPUS, of_device
from reprokit.recipe.registry import benchmark_names
from reprokit.recipe.schema import (
    BenchmarkSection,
    DataSection,
    EvaluationSection,
    JudgeSection,
    ModelSection,
    Precision,
    Recipe,
    Source,
    TrainingSection,
)
from reprokit.records.files import write_json, write_text
from reprokit.records.record import Record, Results, write_results
from reprokit.records.run_directory import RunDirectory
from reprokit.stages import STAGES
from tests.performance.generation import Job
from tests.performance.gpu_evaluation import decoding_mbu
from tests.test_launch import prepared, sealed, write_cell
from tests.test_planner import HEAD_14B, PARAMETERS_14B, QWEN3_14B

LAYERS_14B = PARAMETERS_14B - 2 * HEAD_14B
STEPS = [10, 20, 40, 80, 160, 320, 480, 640]


def profile(gpu: str | None = "H200", memory: float | None = 141, **settings: Any) -> ClusterProfile:
    node = Resources(tasks_per_node=8, gpus_per_node=8, hours=24)
    return ClusterProfile(gpu=gpu, gpu_memory_gb=memory, **{"train": node, "evaluate": node, **settings})


def recipe_of(*names: str, mean_length: int | None = 6000, **training: Any) -> Recipe:
    """The paper's default run on some benchmarks, by default MATH500 alone."""
    settings = {"learning_rate": 5e-5, "epochs": 8, "global_batch_size": 256, "checkpoint_steps": STEPS, **training}
    return Recipe(
        name="run",
        model=ModelSection(name="Base", hub_id="a/b", shape=dict(QWEN3_14B)),
        data=DataSection(name="Data", rows=20480, mean_length=mean_length),
        training=TrainingSection(**settings),
        evaluation=EvaluationSection(benchmarks={name: BenchmarkSection() for name in names or ("math500",)}),
    )


def whole(recipe: Recipe, cluster: ClusterProfile | None = None, results: Path | None = None) -> Cost:
    return cost(recipe, cluster or profile(), None, results)


def test_training_of_14b_by_hand() -> None:
    rows, length = 20480 * 8, 6000
    linear = 6 * (LAYERS_14B + HEAD_14B) * rows * length  # 8.25e19
    attention = 6 * 40 * 40 * 128 * rows * length**2  # 0.72e19
    taken = (linear + attention) / (8 * 989e12 * TRAINING_MFU) / 3600 + START_HOURS
    assert taken == pytest.approx(7.96, abs=0.01)
    assert whole(recipe_of()).gpu_hours["train"] == pytest.approx(8 * taken)
    one_epoch = whole(recipe_of(epochs=1, checkpoint_steps=[80])).gpu_hours["train"]
    assert one_epoch == pytest.approx(8 * ((taken - START_HOURS) / 8 + START_HOURS))


def test_generation_of_14b_on_one_node_by_hand() -> None:
    """MATH500, 3 samples of 500 problems by 8 engines, after the last step: 6000 tokens a response."""
    alone = replace(recipe_of(checkpoint_steps=[640]), source=Source.training)
    per_step = 2 * (LAYERS_14B + HEAD_14B)  # bytes of weights
    bandwidth, operations = 4.8e12 * DECODING_MBU, 989e12 * PREFILL_MFU
    tokens, context = 1500 * 6000 / 8, 150 + 3000
    # 187.5 responses of an engine fit its cache of 100 GB beside each other, at 0.5 GB each
    decoding = max(6000 * per_step / bandwidth, 2 * PARAMETERS_14B * tokens / operations)
    cache = tokens * context * 2 * 2 * 40 * 8 * 128 / bandwidth
    prefill = 2 * PARAMETERS_14B * 1500 / 8 * 150 / operations
    drain = 32768 * per_step / bandwidth
    trained = decoding + cache + prefill + drain
    assert 700 < trained < 720
    base = whole(replace(alone, source=Source.model)).gpu_hours["evaluate"] / 8 - START_HOURS
    both = whole(alone).gpu_hours["evaluate"] / 8 - 2 * START_HOURS  # an element for each checkpoint
    assert (both - base) * 3600 == pytest.approx(trained)


def test_sequences_in_flight_are_bounded_by_requests_cache_and_vllm() -> None:
    rates = rates_of(profile())
    assert isinstance(rates, Rates)
    size = EngineSize(gpus=1, parameters=1, weights=0.0, read=1.0, cached=163_840.0)
    cache = (0.9 * 141 - 6) * 2**30
    long = load_of(10_000, 20_000, 0, 32768)
    assert in_flight(long, size, 1, rates) == pytest.approx(cache / (163_840 * 10_000))
    assert in_flight(load_of(16, 20_000, 0, 32768), size, 8, rates) == 2
    assert in_flight(load_of(10_000, 100, 0, 32768), size, 1, rates) == 1024
    assert in_flight(load_of(10_000, 100, 0, 32768), size, 1, replace(rates, gpu=GPUS["A100"], memory_gb=80)) == 256
    assert in_flight(long, replace(size, weights=2.0 * cache), 1, rates) == 1
    assert in_flight(long, replace(size, gpus=4), 1, rates) == pytest.approx(4 * cache / (163_840 * 10_000))


def test_more_of_anything_never_costs_less() -> None:
    hours = whole(recipe_of()).gpu_hours
    for dearer in (
        recipe_of(mean_length=9000),
        recipe_of(epochs=16),
        replace(recipe_of(), model=ModelSection(name="x", hub_id="a/b", shape={**QWEN3_14B, "num_hidden_layers": 60})),
    ):
        assert whole(dearer).gpu_hours["train"] > hours["train"]
    more = recipe_of()
    more.evaluation.benchmarks["math500"].samples = 6
    assert whole(more).gpu_hours["evaluate"] > hours["evaluate"]
    fewer = recipe_of()
    fewer.evaluation.benchmarks["math500"].items = 50
    assert whole(fewer).gpu_hours["evaluate"] < hours["evaluate"]
    some = recipe_of()
    some.evaluation.steps = [0, 640]
    assert whole(some).gpu_hours["evaluate"] < hours["evaluate"] and whole(some).jobs == 1 + 2 + 3
    two_nodes = profile(train=Resources(nodes=2, tasks_per_node=8, gpus_per_node=8, hours=24))
    quicker, slower = whole(recipe_of(), two_nodes), whole(recipe_of())
    assert quicker.wall_hours is not None and slower.wall_hours is not None and quicker.wall_hours < slower.wall_hours


def test_measured_rates_win_over_assumptions() -> None:
    assumed, measured = whole(recipe_of()), whole(recipe_of(), profile(training_mfu=0.2, decoding_mbu=0.25))
    started = 8 * START_HOURS
    assert measured.gpu_hours["train"] - started == pytest.approx(2 * (assumed.gpu_hours["train"] - started))
    assert 1.5 < measured.gpu_hours["evaluate"] / assumed.gpu_hours["evaluate"] < 2
    assert {"training_mfu 0.4", "decoding_mbu 0.5"} <= set(assumed.assumptions)
    assert not any("mfu" in one or "mbu" in one for one in measured.assumptions)


def report_of(run: RunDirectory, lengths: list[int], max_length: int = 20000) -> None:
    edges = sorted({*lengths, *(length + 1 for length in lengths)})
    counts = [lengths.count(edge) for edge in edges[:-1]]
    facts: dict[str, Any] = {
        name: "" for name in ("eos_token", "template_preamble", "first_row_prompt", "first_row_target")
    }
    facts |= dict.fromkeys(
        ("rows_truncated", "tokens_truncated", "eos_id", "vocabulary", "rows_without_system_turn"), 0
    )
    report = Report(
        rows=len(lengths),
        tokens=sum(lengths),
        target_tokens=sum(lengths) // 2,
        length_min=min(lengths),
        length_median=0.0,
        length_mean=sum(lengths) / len(lengths),
        length_max=max(lengths),
        length_histogram=Histogram(edges, counts),
        max_length=max_length,
        first_row_prompt_tokens=0,
        first_row_target_tokens=0,
        arrays={},
        **facts,
    )
    write_json(run.data / "report.json", report)


def test_prepared_rows_win_over_stated_lengths(tmp_path: Path) -> None:
    recipe, run = recipe_of(), RunDirectory(tmp_path / "run")
    lengths = [1000] * 10240 + [3000] * 10240
    report_of(run, lengths)
    tokens, squares = 8 * sum(lengths), 8 * sum(length**2 for length in lengths)
    flops = 6 * (LAYERS_14B * tokens + HEAD_14B * tokens / 2 + 40 * 40 * 128 * squares)
    found = cost(recipe, profile(), run, None)
    assert found.gpu_hours["train"] == pytest.approx(8 * START_HOURS + flops / (989e12 * TRAINING_MFU) / 3600)
    assert not any("rows" in one for one in found.assumptions)
    stated = cost(recipe, profile(), RunDirectory(tmp_path / "other"), None)
    assert stated == whole(recipe) and "rows of data.mean_length tokens" in stated.assumptions
    report_of(run, lengths, max_length=4096)  # of other rows than the recipe asks for
    assert cost(recipe, profile(), run, None) == stated
    unknown = whole(recipe_of(mean_length=None))
    assert any("rows of data.max_length tokens, which is more" in one for one in unknown.assumptions)
    assert unknown.gpu_hours["train"] > 3 * stated.gpu_hours["train"]


def record(step: int, tokens: float, run: str = "run", model: str = "Base", dataset: str | None = "Data") -> Record:
    return Record(
        run=run,
        model=model,
        dataset=dataset,
        step=step,
        benchmark="math500",
        metric="avg@3",
        value=1.0,
        unit="percent",
        mean_response_tokens=tokens,
        origin="measured",
    )


def tokens_of(recipe: Recipe, results: Path) -> float:
    """Tokens of a response, on average over all checkpoints."""
    return whole(recipe, results=results).tokens["math500"] / (1500 * 9)


def test_measured_lengths_win_over_defaults(tmp_path: Path) -> None:
    recipe = recipe_of()
    early = LIMIT * 32768 if 4 * 6000 > LIMIT * 32768 else 24000
    assert tokens_of(recipe, tmp_path) == pytest.approx((UNTRAINED + 3 * early + 5 * 6000) / 9)
    assert whole(recipe).responses == (6000, early)
    found = []
    for name, records in (
        ("stranger", [record(640, 7, run="stranger", dataset="Other"), record(0, 7, model="Other", dataset=None)]),
        ("cousin", [record(640, 800, run="cousin", model="Other"), record(80, 400, run="cousin", model="Other")]),
        ("sibling", [record(640, 900, run="sibling"), record(0, 90, run="sibling", dataset=None)]),
        ("run", [record(640, 1000)]),
    ):
        write_results(tmp_path / f"{name}.json", Results(run=name, records=records))
        found.append(9 * tokens_of(recipe, tmp_path))
    write_text(tmp_path / "damaged.json", "{")
    assert found == pytest.approx(
        [
            UNTRAINED + 3 * early + 5 * 6000,  # nobody has measured this model or this data set
            UNTRAINED + 800 + 400 + 6 * 600,  # another model on it: the same step, or the mean over all
            90 + 900 + 400 + 6 * 900,  # the same model
            90 + 1000 + 400 + 6 * 1000,  # this run
        ]
    )
    assert 9 * tokens_of(recipe, tmp_path) == pytest.approx(found[-1])
    measured = whole(recipe, results=tmp_path)
    assert measured.responses is None and not any("responses" in one for one in measured.assumptions)
    recipe.evaluation.max_tokens = 100
    assert 9 * tokens_of(recipe, tmp_path) == pytest.approx(90 + 8 * 100)


def test_a_guessed_length_stays_below_the_limit() -> None:
    long = whole(recipe_of("aime24", mean_length=19000)).tokens["aime24"] / 300
    assert long == pytest.approx(UNTRAINED + 8 * LIMIT * 32768)
    assert USUAL["aime24"].factor > USUAL["math500"].factor


def test_sizes_are_those_of_the_benchmarks() -> None:
    assert set(USUAL) == set(benchmark_names())
    sizes = {name: benchmarks.get(name).size for name in USUAL}
    assert {name for name, size in sizes.items() if size is None} == {"hex_phi"}
    assert all(USUAL[name].items == size for name, size in sizes.items() if size is not None)
    assert all(USUAL[name].made == (benchmarks.get(name).make is not None) for name in USUAL)
    assert [USUAL["math500"].asked(items) for items in (None, 7, 501)] == [500, 7, 500]
    assert [USUAL["countdown"].asked(items) for items in (None, 7, 501)] == [200, 7, 501]


def test_gpus_that_are_not_known() -> None:
    without = whole(recipe_of(), profile(gpu=None, memory=None))
    assert without.gpu_hours == {} and without.wall_hours is None and without.unknown.startswith("no GPU")
    assert without.jobs == 1 + 9 + 3 and without.disk == whole(recipe_of()).disk
    unnamed = whole(recipe_of(), profile(gpu=None))
    assert "Set gpu there to one of A100, " in unnamed.unknown and unnamed.gpu_hours == {}
    unmeasured = whole(recipe_of(), profile(memory=None))
    assert "Set gpu_memory_gb: 141 there" in unmeasured.unknown and unmeasured.gpu_hours == {}
    nameless = replace(recipe_of(), model=ModelSection(name="x", hub_id="a/b"))
    assert "model.shape" in whole(nameless).unknown and whole(nameless).disk.checkpoints == 0


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-PCIE-40GB", None),
        ("NVIDIA H200 NVL", None),
        ("Quadro P1000", None),
    ],
)
def test_kinds_of_devices(device: str, kind: str | None) -> None:
    found = of_device(device)
    assert (found.name if found else None) == kind


def test_only_what_is_missing_costs(tmp_path: Path) -> None:
    """As planned: as many elements as the jobs of the plan have, whatever is there already."""
    recipe, cluster = load("mini").recipe, replace(load_profile("h200"), gpu="H200")
    workspace = Workspace(tmp_path)

    def agreed(*stages: str) -> Cost:
        jobs = plan(workspace, recipe, cluster, stages or tuple(STAGES), STAGES, False)
        found = cost(recipe, cluster, workspace.run("mini"), None, stages or tuple(STAGES))
        assert found.jobs == sum(len(job.elements) for job in jobs if job.name != "prepare")
        assert set(found.gpu_hours) == {job.name for job in jobs} & {"train", "evaluate", "judge"}
        return found

    everything = agreed()
    assert everything == cost(recipe, cluster, None, None)
    run = prepared(tmp_path)
    assert agreed("evaluate", "score").jobs == 2  # the base alone: nothing will train the others
    assert agreed("train").disk.samples == 0
    for step in (10, 20, 40):
        sealed(run.checkpoint(step), step)
        for name in recipe.evaluation.benchmarks:
            write_cell(run, recipe, step, name)
    sealed(run.state(40), 40)
    resumed = agreed()
    assert resumed.gpu_hours["train"] < everything.gpu_hours["train"]
    assert resumed.jobs == everything.jobs - 3
    assert resumed.disk.checkpoints == pytest.approx(everything.disk.checkpoints * 5 / 9)
    assert resumed.disk.states == pytest.approx(everything.disk.states * 2 / 3)
    for step in (80, 160, 320, 480, 640):
        sealed(run.checkpoint(step), step)
    write_text(run.training_complete, "{}")
    trained = agreed()
    assert "train" not in trained.gpu_hours and trained.disk.checkpoints == trained.disk.states == 0
    for step in (0, 80, 160, 320, 480, 640):
        for name in recipe.evaluation.benchmarks:
            write_cell(run, recipe, step, name)
    assert cost(recipe, cluster, run, None) == Cost(wall_hours=0, gpu="H200")


def test_prepared_problems_are_counted(tmp_path: Path) -> None:
    recipe, run = load("mini").recipe, prepared(tmp_path)  # of one problem per benchmark
    assert sum(cost(recipe, profile(), run, None).tokens.values()) < sum(whole(recipe).tokens.values()) / 100


def test_runs_that_do_not_train_cost_no_training() -> None:
    published = replace(recipe_of(), source=Source.published)
    published.published.hub_id = "a/b-trained"
    found, trained = whole(published), whole(recipe_of())
    assert set(found.gpu_hours) == {"evaluate"} and found.gpu_hours["evaluate"] == trained.gpu_hours["evaluate"]
    assert found.disk.checkpoints == found.disk.states == 0
    assert found.disk.published == 8 * 2 * PARAMETERS_14B
    model = whole(replace(recipe_of(), source=Source.model))
    assert model.jobs == 1 + 3 and model.disk.published == 0
    assert model.assumptions == ("decoding_mbu 0.5", "responses of 2,000 tokens before training")


def test_what_the_rates_leave_out_is_said() -> None:
    said = whole(recipe_of(cpu_offload=True, precision=Precision.fp32)).assumptions
    assert any("training.cpu_offload" in one for one in said) and any(
        "training.precision is fp32" in one for one in said
    )
    assert not any("cpu_offload" in one or "fp32" in one for one in whole(recipe_of()).assumptions)


def test_engines_of_several_gpus_leave_fewer_beside_each_other() -> None:
    """14B takes four GPUs of 24 GB: two engines on a node of eight; 33B would take all eight."""
    small = whole(recipe_of(), profile("RTX 4090", 24))
    assert small.gpu_hours["evaluate"] > 4 * whole(recipe_of()).gpu_hours["evaluate"]
    with pytest.raises(UserError, match="no engine"):
        whole(recipe_of(), profile("RTX 4090", 8))


def test_judges_on_our_own_gpus_cost_and_endpoints_do_not() -> None:
    recipe = recipe_of("hex_phi", "truthfulqa")
    both = whole(recipe)
    assert both.jobs == 1 + 9 + 1 + 3 and both.gpu_hours["judge"] > 3 * 8 * START_HOURS
    recipe.evaluation.judges = {"harm": JudgeSection(endpoint="http://host/v1", model="m")}
    fewer = whole(recipe)
    assert fewer.gpu_hours["judge"] < both.gpu_hours["judge"] and fewer.jobs == both.jobs
    assert both.disk.hub - fewer.disk.hub == pytest.approx(2 * 32.8e9)
    only = whole(recipe_of("math500"))
    assert "judge" not in only.gpu_hours


def test_limits_of_the_profile_that_are_too_short() -> None:
    assert whole(recipe_of()).too_long == {}
    short = Resources(tasks_per_node=8, gpus_per_node=8, hours=0.1)
    limited = whole(recipe_of(), profile(train=short, evaluate=short))
    trains, evaluates = printed(limited)[-2:]
    assert "training takes about 8.0 h; stopped after 0.1 h (train.hours of the cluster profile), it goes" in trains
    assert "takes up to 1.5 h; stopped after 0.1 h (evaluate.hours of" in evaluates
    assert "raise train.hours" in trains and "raise evaluate.hours" in evaluates
    both = total([limited, whole(recipe_of(mean_length=9000), profile(train=short, evaluate=short))])
    assert both.too_long["train"].hours > limited.too_long["train"].hours and both.too_long["train"].limit == 0.1


def test_elements_share_the_nodes() -> None:
    assert spread([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert spread([1.0, 1.0, 1.0, 3.0], 2) == 4.0
    assert spread([2.0, 2.0], 64) == 2.0
    beside, after = whole(recipe_of()), whole(recipe_of(), profile(max_parallel=1))
    local = whole(recipe_of(), profile(scheduler=Scheduler.local))
    assert beside.gpu_hours == after.gpu_hours == local.gpu_hours
    assert after.wall_hours == local.wall_hours == pytest.approx(sum(after.gpu_hours.values()) / 8)
    assert beside.wall_hours is not None and beside.wall_hours < sum(beside.gpu_hours.values()) / 8
    together = whole(recipe_of(), profile(checkpoints_per_element=9))
    assert beside.gpu_hours["evaluate"] - together.gpu_hours["evaluate"] == pytest.approx(8 * 8 * START_HOURS)


def test_several_runs_together() -> None:
    one, other = whole(recipe_of()), whole(replace(recipe_of("hex_phi"), name="other"))
    both = total([one, other])
    assert both.jobs == one.jobs + other.jobs
    assert both.gpu_hours["evaluate"] == one.gpu_hours["evaluate"] + other.gpu_hours["evaluate"]
    assert both.gpu_hours["judge"] == other.gpu_hours["judge"]
    assert both.disk.states == 2 * one.disk.states and both.tokens == {**one.tokens, **other.tokens}
    assert one.wall_hours and other.wall_hours and both.wall_hours == max(one.wall_hours, other.wall_hours)
    assert total([one, other], beside=False).wall_hours == one.wall_hours + other.wall_hours
    assert both.gpu == "H200" and len(both.assumptions) == len(set(both.assumptions))
    assert total([]) == Cost()


def test_the_head_of_a_recipe() -> None:
    assert header(recipe_of(), profile()) == (
        "About 110 GPU-hours on H200 (training 64, evaluation 49), 236 GB of checkpoints."
    )
    published = replace(recipe_of(), source=Source.published)
    published.published.hub_id = "a/b-trained"
    assert header(published, profile()) == (
        "About 49 GPU-hours on H200 (evaluation 49), 236 GB of checkpoints to fetch."
    )
    assert header(recipe_of(), profile(gpu=None)) == "236 GB of checkpoints."
    assert [rounded(value) for value in (0, 0.034, 0.5, 5, 9.96, 43.4, 1916, 20162)] == [
        *("0", "0.034", "0.5", "5.0", "10", "43", "1,900", "20,000")
    ]


def printed(found: Cost) -> list[str]:
    console = Console(file=io.StringIO(), width=400)
    print_cost(found, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_what_is_printed() -> None:
    time, disk, assumed, measure = printed(whole(recipe_of()))
    assert time.startswith("time:    About 110 GPU-hours on H200 (training 64, evaluation 49), ")
    assert disk == (
        "disk:    236 GB of checkpoints, 532 GB of resumable states while it trains, 624 MB of samples, "
        "30 GB of other models to fetch"
    )
    assert assumed.startswith("assumed: training_mfu 0.4, decoding_mbu 0.5, rows of data.mean_length tokens, ")
    assert assumed.endswith("responses of 2,000 tokens before training, responses of 6,000 to 24,000 tokens")
    assert "tests.performance.gpu_training" in measure and "tests.performance.gpu_evaluation" in measure
    measured = printed(whole(recipe_of(), profile(training_mfu=0.5, decoding_mbu=0.6)))
    assert len(measured) == 3 and "mfu" not in "".join(measured)
    most = printed(whole(recipe_of("math500", "halueval")))[-2]
    assert most.startswith("note:    ") and "evaluation.benchmarks.halueval.items=N" in most
    none = printed(whole(load("mini").recipe, load_profile("local")))
    assert none[0] == "time:    no GPU in the cluster profile: times are not estimated"
    assert none[1].startswith("disk:    25 MB of checkpoints, 25 MB of resumable states") and len(none) == 2


def test_the_measured_bandwidth_is_what_the_estimate_takes() -> None:
    """Generation as fast as estimated with a utilisation of 0.37 measures as 0.37."""
    gpu = GPUS["H200"]
    job = Job(measure="against_bare", model=QWEN3_14B, precision=Precision.bf16, requests=[(64, 8192)], cores=8)
    size = EngineSize(1, PARAMETERS_14B, 2 * PARAMETERS_14B, 2 * (LAYERS_14B + HEAD_14B), 2 * 2 * 40 * 8 * 128)
    rates = Rates(gpu, 141, 1e30, 1e30, 0.37 * gpu.bandwidth, "", "")
    taken = seconds(load_of(64, 8192, 60, 8192), size, 1, rates)
    assert taken == pytest.approx(sum(bytes_read(load_of(64, 8192, 60, 8192), size, 1, rates)) / rates.decoding)
    generated = {"tokens": {"ours": 64 * 8192}, "ours": {"median": 64 * 8192 / taken}}
    assert decoding_mbu(job, generated, gpu) == pytest.approx(0.37)
    assert seconds(Load(), size, 1, rates) == 0
