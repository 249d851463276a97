"""Official arithmetic on 1 to 8 ranks against the plain 8-rank loop of `tests/reference_official.py`.

`pytest -s` prints every difference. Parameters are compared by ||ours - reference|| / ||reference|| over all of them,
and by the same difference over how far the reference moved.
"""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reprokit.data import tokens
from reprokit.records.run_directory import RunDirectory
from tests import reference_official as official
from tests.conftest import launch
from tests.forked_ranks import Job
from tests.ranks import column, copy_prepared

RECIPE = """\
name: {name}
model:
  name: Qwen3-tiny
  config: {{model_type: qwen3, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4,
    num_key_value_heads: 2, head_dim: 16, intermediate_size: 128, tie_word_embeddings: {tied},
    max_position_embeddings: 512}}
  tokenizer_vocab_size: 400
data: {{name: Words, path: rows.jsonl, max_length: 160}}
training: {{arithmetic: official, learning_rate: 1.0e-3, epochs: 2, global_batch_size: 32, micro_batch_size: 2,
  warmup_fraction: 0.34, max_gradient_norm: 3.0, precision: {precision}, checkpoint_steps: [1, 6]}}
evaluation: {{max_tokens: 8, benchmarks: {{chain_sum: {{items: 1}}}}}}
"""
MODELS = {"untied": ("false", "fp32"), "tied": ("true", "fp32"), "bf16": ("false", "bf16")}
ROWS = 107  # an epoch is 3 steps of 32 rows; 11 are left over, not a multiple of 8 either
STEPS = 6
CLIPPED = official.Settings(
    learning_rate=1e-3,
    epochs=2,
    global_batch_size=32,
    micro_batch_size=2,
    warmup_fraction=0.34,
    max_gradient_norm=3.0,  # below the norm of every summed gradient, above that of every mean
    dtype=torch.float32,
)
# Case -> model, settings of the reference, keys of the recipe that differ from RECIPE.
CASES: dict[str, tuple[str, official.Settings, dict[str, Any]]] = {
    "clipped": ("untied", CLIPPED, {}),
    "unclipped": ("untied", replace(CLIPPED, max_gradient_norm=1000.0), {"max_gradient_norm": 1000.0}),
    "tied": ("tied", CLIPPED, {}),
    "cut": ("untied", CLIPPED, {"micro_batch_tokens": 160}),  # some micro-batches in two passes
    "split": (  # as many ranks as rows: two of them share a micro-batch
        "untied",
        replace(CLIPPED, epochs=1, global_batch_size=16, max_gradient_norm=1.0),
        {"epochs": 1, "global_batch_size": 16, "max_gradient_norm": 1.0},
    ),
    "bf16": ("bf16", replace(CLIPPED, dtype=torch.bfloat16), {}),
}
FP32 = [(1, "clipped"), (2, "clipped"), (4, "clipped"), (8, "clipped"), (1, "unclipped"), (4, "unclipped")]
FP32 += [(1, "tied"), (2, "tied"), (2, "cut"), (16, "split")]
BF16 = [(1, "bf16"), (2, "bf16"), (4, "bf16"), (8, "bf16")]
PARTITIONED = 2  # with this many ranks even the smallest parameters are partitioned, as those of a large model are

Trained = Callable[[int, str], RunDirectory]
Parameters = dict[str, torch.Tensor]
Note = Callable[[str, object], None]


def write_rows(path: Path, count: int) -> None:
    """Rows with prompts and responses of very different lengths, a few of them longer than data.max_length."""
    draw = random.Random(7)
    words = ["sum", "then", "of", "three", "is", "eleven", "so", "wait", "check", "prime", "seven", "\\boxed{5}", "42"]

    def text(shortest: int, longest: int) -> str:
        return " ".join(draw.choices(words, k=round(shortest * (longest / shortest) ** draw.random())))

    lines = [json.dumps({"message": text(2, 20), "response": text(2, 180)}) for _ in range(count)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """Runs in which nothing is trained yet: model, tokenizer and tokens by the kit's own pipeline."""
    folder = tmp_path_factory.mktemp("official")
    write_rows(folder / "rows.jsonl", ROWS)
    for name, (tied, precision) in MODELS.items():
        recipe = RECIPE.format(name=name, tied=tied, precision=precision)
        (folder / f"{name}.yaml").write_text(recipe)
        done = launch(folder, f"recipe={name}.yaml", "cluster=local", "stages=prepare")
        assert done.returncode == 0, done.stdout + done.stderr
    return {name: RunDirectory(folder / "runs" / name) for name in MODELS}


@pytest.fixture(scope="module")
def trained(prepared: dict[str, RunDirectory], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run of a case on so many ranks; every training has processes of its own."""

    @functools.cache
    def train_all() -> dict[tuple[int, str], tuple[RunDirectory, list[int]]]:
        folder = tmp_path_factory.mktemp("trained")
        jobs = {}
        for world, case in FP32 + BF16:
            model, _, changes = CASES[case]
            run = copy_prepared(prepared[model], folder / f"{case}_{world}")
            jobs[world, case] = Job(str(run.root), [world], changes, threshold=0 if world == PARTITIONED else 100_000)
        command = [sys.executable, "-m", "tests.forked_ranks", json.dumps([asdict(job) for job in jobs.values()])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, cwd=Path(__file__).parents[1])
        assert done.returncode == 0
        codes = [attempts[0]["codes"] for attempts in json.loads(done.stdout.splitlines()[-1])]
        runs = [RunDirectory(Path(job.root)) for job in jobs.values()]
        return dict(zip(jobs, zip(runs, codes, strict=True), strict=True))

    def get(world: int, case: str) -> RunDirectory:
        run, codes = train_all()[world, case]
        assert codes == [0] * world
        return run

    return get


@pytest.fixture(scope="module")
def reference(prepared: dict[str, RunDirectory]) -> Callable[[str], official.Result]:
    """What the official loop makes of a case."""

    @functools.cache
    def compute(case: str) -> official.Result:
        model, settings, _ = CASES[case]
        return official_training(prepared[model], settings)

    return compute


def official_training(run: RunDirectory, settings: official.Settings) -> official.Result:
    dataset = tokens.load(run.data)
    rows = [(ids.tolist(), prompt_length) for ids, prompt_length in (dataset[index] for index in range(len(dataset)))]
    return official.train(run.weights(0), rows, settings)


def parameters(run: RunDirectory, step: int) -> Parameters:
    files = run.weights(step).glob("*.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def l2_norm(tensors: Iterator[torch.Tensor]) -> float:
    return float(sum(tensor.double().square().sum() for tensor in tensors)) ** 0.5


def differences(ours: Parameters, theirs: Parameters, base: Parameters) -> tuple[float, float]:
    """L2 norm of the difference over that of the reference, and over that of the change of the reference."""
    assert set(ours) == set(theirs) == set(base)
    difference = l2_norm(ours[name].double() - theirs[name].double() for name in theirs)
    change = l2_norm(theirs[name].double() - base[name].double() for name in theirs)
    return difference / l2_norm(iter(theirs.values())), difference / change


def largest(ours: list[float], theirs: list[float]) -> float:
    """Largest relative difference."""
    return max(abs(one - other) / other for one, other in zip(ours, theirs, strict=True))


def compare(
    run: RunDirectory, expected: official.Result, label: str, record_property: Note
) -> tuple[float, float, float, float]:
    """Relative differences of the parameters, of their change, and the largest of the losses and gradient norms."""
    by_parameters, by_change = differences(parameters(run, STEPS), expected.parameters, parameters(run, 0))
    losses = largest(column(run, "loss"), expected.losses)
    norms = largest(column(run, "gradient_norm"), expected.gradient_norms)
    found = {"parameters": by_parameters, "change": by_change, "losses": losses, "gradient_norms": norms}
    for name, value in found.items():
        record_property(name, value)
    print(f"{label}: " + ", ".join(f"{name} {value:.1e}" for name, value in found.items()))
    return by_parameters, by_change, losses, norms


@pytest.mark.parametrize(("world", "case"), FP32)
def test_any_number_of_ranks_trains_as_eight_official_gpus(
    trained: Trained,
    reference: Callable[[str], official.Result],
    record_property: Note,
    world: int,
    case: str,
) -> None:
    """6 updates in fp32, 2 epochs in file order, a rest of rows that no epoch uses, rows that were cut."""
    run, expected = trained(world, case), reference(case)
    by_parameters, _, losses, norms = compare(run, expected, f"{case}, {world} ranks", record_property)
    assert len(expected.losses) == STEPS
    limit = CASES[case][1].max_gradient_norm
    assert all((found > limit) == (case != "unclipped") for found in expected.gradient_norms)
    assert column(run, "learning_rate") == pytest.approx(expected.learning_rates, rel=1e-12)
    assert by_parameters <= 1e-6
    assert losses <= 1e-5 and norms <= 1e-5


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_first_update_moves_no_parameter(trained: Trained, world: int) -> None:
    """Its learning rate is 0; that its moments count is in the equality after 6 updates and the ablation below."""
    run = trained(world, "clipped")
    base, first = parameters(run, 0), parameters(run, 1)
    assert all(torch.equal(first[name], base[name]) for name in base)
    assert not any(torch.equal(parameter, base[name]) for name, parameter in parameters(run, STEPS).items())


@pytest.mark.parametrize("world", [world for world, _ in BF16])
def test_bf16_differs_by_rounding_only(
    trained: Trained,
    reference: Callable[[str], official.Result],
    record_property: Note,
    world: int,
) -> None:
    """The order of sums differs, and so do sums of fewer ranks, which round gradients more often.

    The official code rounds the norm to bf16 as well, by up to 0.4 %.
    """
    run, expected = trained(world, "bf16"), reference("bf16")
    by_parameters, by_change, losses, norms = compare(run, expected, f"bf16, {world} ranks", record_property)
    assert {tensor.dtype for tensor in parameters(run, STEPS).values()} == {torch.bfloat16}
    assert by_parameters <= 2e-3 and by_change <= 0.03
    assert losses <= 1e-3 and norms <= 0.01


def test_bf16_rounding_is_smaller_than_the_effect_of_bf16(
    prepared: dict[str, RunDirectory],
    reference: Callable[[str], official.Result],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Note,
) -> None:
    """What the test above allows is more than another order of sums, and less than parameters and moments in fp32."""
    run, expected = prepared["bf16"], reference("bf16")
    settings, base = CASES["bf16"][1], parameters(run, 0)
    in_fp32 = official_training(run, replace(settings, dtype=torch.float32))
    monkeypatch.setattr(official, "micro_batch_loss", without_padding)
    other_sums = official_training(run, settings)
    changes = [differences(result.parameters, expected.parameters, base)[1] for result in (other_sums, in_fp32)]
    record_property("changes", changes)
    print(f"bf16 reference: change without padding {changes[0]:.1e}, in fp32 {changes[1]:.1e}")
    assert changes[0] < 0.03 < changes[1]


def test_rows_are_dealt_out_as_on_eight_gpus() -> None:
    """Row 256k + r + 32t + 8j of the paper's default run; 80 steps in each of 2 epochs, both in the same order."""
    settings = official.Settings(learning_rate=1.0, epochs=2, global_batch_size=256, micro_batch_size=4)
    steps = list(official.steps_of(20480 + 255, settings))
    assert len(steps) == 160 and steps[:80] == steps[80:]
    assert steps[7][3][5] == [256 * 7 + 3 + 32 * 5 + 8 * j for j in range(4)]


def without_padding(model: Any, batch: official.Batch) -> torch.Tensor:
    """`micro_batch_loss` of the reference from rows that are computed one by one."""
    losses = []
    for ids, mask, counted in zip(batch.input_ids, batch.attention_mask.sum(-1), batch.loss_mask, strict=True):
        logits = model(input_ids=ids[None, :mask], use_cache=False).logits[0]
        probabilities = logits.float().log_softmax(-1)
        losses += [-probabilities[place, ids[place + 1]] for place in counted.nonzero().flatten()]
    return torch.stack(losses).mean()


def test_the_reference_gives_padding_no_weight(
    prepared: dict[str, RunDirectory],
    reference: Callable[[str], official.Result],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Note,
) -> None:
    """How far rounding alone moves 6 updates: below what the kit is allowed."""
    run, padded = prepared["untied"], reference("clipped")
    monkeypatch.setattr(official, "micro_batch_loss", without_padding)
    unpadded = official_training(run, CLIPPED)
    found = differences(unpadded.parameters, padded.parameters, parameters(run, 0))
    record_property("parameters", found[0])
    print(f"reference without padding: parameters {found[0]:.1e}, change {found[1]:.1e}")
    assert found[0] <= 1e-7
    assert unpadded.losses == pytest.approx(padded.losses, rel=1e-6)


def mean_over_micro_batches(patch: pytest.MonkeyPatch) -> None:
    usual = official.micro_batch_loss
    patch.setattr(official, "micro_batch_loss", lambda model, batch: usual(model, batch) / 2)


def neighbouring_rows(patch: pytest.MonkeyPatch) -> None:
    def dealt(rows: int, settings: official.Settings) -> Iterator[official.Step]:
        for number in range(STEPS):
            start = number % 3 * 32
            yield [[[start + 4 * rank + 2 * piece + j for j in (0, 1)] for piece in (0, 1)] for rank in range(8)]

    patch.setattr(official, "steps_of", dealt)


def second_epoch_in_another_order(patch: pytest.MonkeyPatch) -> None:
    usual = official.steps_of

    def dealt(rows: int, settings: official.Settings) -> Iterator[official.Step]:
        steps = list(usual(rows, settings))
        return iter(steps[:3] + steps[:2:-1])

    patch.setattr(official, "steps_of", dealt)


def first_update_left_out(patch: pytest.MonkeyPatch) -> None:
    usual = torch.optim.AdamW.step
    patch.setattr(torch.optim.AdamW, "step", lambda self: usual(self) if self.param_groups[0]["lr"] > 0 else None)


def mean_of_all_tokens(patch: pytest.MonkeyPatch) -> None:
    """A micro-batch counts with its target tokens (on average 88), as in a mean over the tokens of the global batch."""
    usual = official.micro_batch_loss
    patch.setattr(official, "micro_batch_loss", lambda model, batch: usual(model, batch) * batch.loss_mask.sum() / 88)


def no_clipping(patch: pytest.MonkeyPatch) -> None:
    usual = torch.nn.utils.clip_grad_norm_
    patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda tensors, _: usual(tensors, 1e9))


ABLATIONS = [
    mean_over_micro_batches,
    neighbouring_rows,
    second_epoch_in_another_order,
    first_update_left_out,
    mean_of_all_tokens,
    no_clipping,
]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_another_arithmetic_would_be_noticed(
    prepared: dict[str, RunDirectory],
    reference: Callable[[str], official.Result],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Note,
    ablation: Callable[[pytest.MonkeyPatch], None],
) -> None:
    run, expected = prepared["untied"], reference("clipped")
    ablation(monkeypatch)
    found = differences(official_training(run, CLIPPED).parameters, expected.parameters, parameters(run, 0))
    record_property("parameters", found[0])
    print(f"{ablation.__name__}: parameters {found[0]:.1e}, change {found[1]:.1e}")
    assert found[0] > 1e-4
