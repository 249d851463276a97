"""Recipes: composition, types, every error at once with its place, and the resolved file of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reprokit.errors import UserError
from reprokit.recipe import (
    RecipeError,
    evaluated_steps,
    load,
    load_resolved,
    recipe_names,
    row_count,
    total_steps,
)
from reprokit.recipe.load import RECIPES
from reprokit.recipe.registry import DATA_SUFFIXES, GENERATORS, SMALLEST_VOCABULARY
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import BenchmarkSection, Precision, Schedule

GOOD = """\
name: small
model:
  name: Tiny
  config: {model_type: qwen3, hidden_size: 64, max_position_embeddings: 512}
  tokenizer_vocab_size: 300
data:
  name: Countdown
  generator: countdown
  rows: 1000
  max_length: 512
training:
  learning_rate: 1.0e-3
  epochs: 2
  global_batch_size: 32
  micro_batch_size: 8
  checkpoint_steps: [10, 62]
evaluation:
  max_tokens: 128
  benchmarks:
    countdown: {items: 20}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipes folder with the kit's own recipes and GOOD."""
    copied = tmp_path / "recipes"
    copytree(RECIPES, copied)
    (copied / "good.yaml").write_text(GOOD)
    return copied


def problems_of(name: str, folder: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(name, overrides, folder)
    return [str(problem) for problem in caught.value.problems]


def test_every_recipe_of_the_kit_loads() -> None:
    names = recipe_names()
    folders = (RECIPES, RECIPES / "paper", RECIPES / "one_gpu")
    files = sorted(
        str(path.relative_to(RECIPES).with_suffix("")) for folder in folders for path in folder.glob("*.yaml")
    )
    assert names == files and {"mini", "mini_ten", "qwen_long_cot"} < set(names)
    for name in names:
        above = (RECIPES / f"{name}.yaml").read_text().split("\ninclude:")[0]
        assert above.startswith("# ") and f"\n#   python -m reprokit.launch recipe={name}" in above, name
        recipe = load(name).recipe
        assert total_steps(recipe) == recipe.training.checkpoint_steps[-1]


def test_default_run_of_the_paper() -> None:
    loaded = load("qwen_long_cot")
    recipe = loaded.recipe
    assert recipe.name == "Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256"
    assert recipe.model.hub_id == "Qwen/Qwen3-14B-Base" and recipe.model.shape is not None
    assert recipe.data.rows == row_count(recipe) == 20480
    assert recipe.training.learning_rate == 5e-5 and recipe.training.schedule is Schedule.cosine
    assert recipe.training.precision is Precision.bf16 and recipe.training.gradient_checkpointing
    assert recipe.training.betas == [0.9, 0.999] and recipe.training.weight_decay == 0.01
    assert total_steps(recipe) == 640
    assert evaluated_steps(recipe) == [0, 10, 20, 40, 80, 160, 320, 480, 640]
    assert sampling(recipe.evaluation, "math500").max_tokens == 32768
    assert all(isinstance(own, BenchmarkSection) for own in recipe.evaluation.benchmarks.values())
    lines = (RECIPES / "training" / "paper.yaml").read_text().splitlines()
    line = lines.index("  betas: [0.9, 0.999]") + 1
    assert loaded.origins["training.betas"] == f"recipes/training/paper.yaml:{line}"
    assert loaded.origins["training.seed"] == "default"


def test_later_sources_win_and_sections_are_merged(folder: Path) -> None:
    (folder / "one.yaml").write_text("training: {epochs: 1, seed: 1}\nmodel: {seed: 1}\n")
    (folder / "two.yaml").write_text("include: [one]\ntraining: {seed: 2, weight_decay: 0.2}\n")
    (folder / "three.yaml").write_text("training: {seed: 3}\n")
    (folder / "top.yaml").write_text("include: [good, two, three]\nname: top\nmodel:\n")
    loaded = load("top", ["training.weight_decay=0.5", "training.checkpoint_steps[1]=31"], folder)
    training = loaded.recipe.training
    assert (training.epochs, training.seed, training.weight_decay) == (1, 3, 0.5)
    assert training.checkpoint_steps == [10, 31]
    assert loaded.recipe.model.seed == 1 and loaded.recipe.model.name == "Tiny"  # an empty section takes nothing away
    assert loaded.origins["training.seed"] == "recipes/three.yaml:1"
    assert loaded.origins["training.weight_decay"] == loaded.origins["training.checkpoint_steps"] == "command line"


def test_override_values_are_yaml(folder: Path) -> None:
    overrides = ["training.learning_rate=5e-5", "name=1.10", "evaluation.benchmarks.chain_sum=", "model.seed=1_0"]
    recipe = load("good", [*overrides, "training.gradient_checkpointing=no"], folder).recipe
    assert recipe.training.learning_rate == 5e-5
    assert recipe.name == "1.10"  # a name stays as written
    assert recipe.evaluation.benchmarks["chain_sum"] == BenchmarkSection()
    assert recipe.model.seed == 10
    assert recipe.training.gradient_checkpointing is False


def test_interpolation_reaches_other_files_and_defaults(folder: Path) -> None:
    (folder / "part.yaml").write_text("training: {micro_batch_size: '${training.global_batch_size}'}\n")
    text = "include: [good, part]\nname: ${model.name}_bs${training.global_batch_size}_seed${training.seed}\n"
    (folder / "top.yaml").write_text(text)
    recipe = load("top", (), folder).recipe
    assert recipe.name == "Tiny_bs32_seed0"
    assert recipe.training.micro_batch_size == 32


def test_a_recipe_outside_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "elsewhere" / "deep"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("include: [good, beside]\nname: mine\n")
    (own / "beside.yaml").write_text("training: {seed: 7}\n")
    assert load(str(own / "mine.yaml"), (), folder).recipe.training.seed == 7
    monkeypatch.chdir(own.parent)
    loaded = load("deep/mine.yaml", (), folder)
    assert loaded.origins["name"] == "deep/mine.yaml:2"
    assert loaded.origins["training.epochs"] == "recipes/good.yaml:13"


def test_recipes_in_subfolders(folder: Path) -> None:
    (folder / "ablation").mkdir()
    (folder / "ablation" / "short.yaml").write_text("include: [good]\nname: short\n")
    assert load("ablation/short", (), folder).recipe.name == "short"
    assert "ablation/short" in recipe_names(folder)


def test_unknown_name_lists_the_recipes(folder: Path) -> None:
    (problem,) = problems_of("qwen_lon_cot", folder)
    assert "good, mini, mini_ten, " in problem and ", qwen_long_cot" in problem
    assert "did you mean recipe=qwen_long_cot?" in problem
    assert "training/paper" not in problem  # a fragment is no recipe
    assert str(folder / "qwen_lon_cot.yaml") in problem
    assert problems_of("", folder) and problems_of("no/such/file.yaml", folder) and problems_of("a\0b", folder)


# what is replaced in GOOD, the replacement with `# <-` in the line to report, and what the message has to say
BROKEN = {
    "unknown key": ("epochs: 2", "epochs: 2\n  learnin_rate: 5e-5  # <-", ["5e-5", "training.learning_rate?"]),
    "key in the wrong section": (
        "name: small",
        "name: small\nepochs: 3  # <-",
        ["3", "training.epochs?", "name, model"],
    ),
    "wrong type": ("epochs: 2", "epochs: two  # <-", ["two", "a whole number", "not a number"]),
    "fraction for a count": ("epochs: 2", "epochs: 2.0  # <-", ["2.0", "write 2"]),
    "separated thousands": ("rows: 1000", "rows: '1,000'  # <-", ["1,000", "write 1000"]),
    "yes or no": ("epochs: 2", "epochs: 2\n  gradient_checkpointing: 1.5  # <-", ["1.5", "true or false"]),
    "unknown choice": ("epochs: 2", "epochs: 2\n  schedule: linear  # <-", ["linear", "cosine, constant"]),
    "element of a list": ("[10, 62]", "[10, x]  # <-", ["checkpoint_steps[1]", "given: x"]),
    "no list": ("[10, 62]", "62  # <-", ["62", "a list of numbers"]),
    "section without keys": ("epochs: 2", "epochs: {a: 1}  # <-", ["{a: 1}", "a whole number"]),
    "null": ("epochs: 2", "epochs: null  # <-", ["null", "a whole number"]),
    "missing include": ("name: small", "include: [paper/gone]  # <-\nname: small", ["paper/gone", "no such file"]),
    "mistyped include": (
        "name: small",
        "include: [training/papr]  # <-\nname: small",
        ["did you mean training/paper?"],
    ),
    "include is no list": ("name: small", "include: mini  # <-\nname: small", ["given: mini", "include: ["]),
    "include cycle": (
        "name: small",
        "name: small\ninclude: [broken]  # <-",
        ["recipes/broken.yaml -> recipes/broken.yaml", "remove"],
    ),
    "steps not increasing": ("[10, 62]", "[62, 10]  # <-", ["[62, 10]", "not increasing", "[10, 62]"]),
    "steps beyond the end": (
        "[10, 62]",
        "[10, 62, 80]  # <-",
        ["[80]", "62 = floor(1000 rows / 32 per batch) x 2 epochs", "training.checkpoint_steps: [10, 62]"],
    ),
    "end not saved": ("[10, 62]", "[10, 40]  # <-", ["would not be saved", "[10, 40, 62]"]),
    "no steps": ("[10, 62]", "[]  # <-", ["no steps", "for example [10"]),
    "step 0": ("[10, 62]", "[0, 62]  # <-", ["checkpoint_steps[0]", "given: 0", ">= 1"]),
    "YAML syntax": (
        "epochs: 2\n  global_batch_size: 32",
        "epochs: [2\n  global_batch_size: 32  # <-",
        ["YAML syntax", "starts in line 13", "given: global_batch_size: 32", "check indentation"],
    ),
    "duplicate key": ("epochs: 2", "epochs: 2\n  epochs: 4  # <-", ["given: 4", "in line 13", "keep one"]),
    "two model sources": (
        "name: Tiny",
        "name: Tiny\n  config: {model_type: x}  # <-\n  hub_id: a/b",
        ["model.hub_id=a/b", "exactly one source", "model.hub_id=null"],
    ),
    "no data source": ("generator: countdown", "seed: 1", ["exactly one source", "data.path, data.hub_id"]),
    "unknown generator": ("generator: countdown", "generator: countdwn  # <-", ["countdwn", "did you mean countdown?"]),
    "unknown benchmark": ("countdown: {i", "countdwn: {i", ["countdwn", "chain_sum", "did you mean countdown?"]),
    "missing value": ("  learning_rate: 1.0e-3\n", "", ["training.learning_rate", "missing required value", "add"]),
    "placeholder": ("epochs: 2", "epochs: ???  # <-", ["training.epochs", "missing required value"]),
    "out of range": ("1.0e-3", "5  # <-", ["given: 5", "> 0 and < 1"]),
    "not finite": ("epochs: 2", "epochs: 2\n  epsilon: .inf  # <-", ["inf", "> 0"]),
    "official batch": (
        "global_batch_size: 32\n  micro_batch_size: 8",
        "global_batch_size: 32  # <-\n  micro_batch_size: 8\n  arithmetic: official",
        ["given: 32", "a multiple of 8 x training.micro_batch_size=8", "global_batch_size: 64", "_size: 1, 2, 4"],
    ),
    "no room for a row": (
        "epochs: 2",
        "epochs: 2\n  micro_batch_tokens: 511  # <-",
        ["511", "at least 512", "data.max_length", "micro_batch_tokens: 512"],
    ),
    "token budget": ("epochs: 2", "epochs: 2\n  micro_batch_tokens: 1  # <-", ["given: 1", "valid: >= 2"]),
    "resumable states": ("epochs: 2", "epochs: 2\n  state_every: 0  # <-", ["given: 0", ">= 1"]),
    "offload": (
        "micro_batch_size: 8",
        "micro_batch_size: 4\n  arithmetic: official\n  cpu_offload: true  # <-",
        ["official arithmetic has no offload", "training.cpu_offload: false", "training.arithmetic: standard"],
    ),
    "shape of a local model": (
        "name: Tiny",
        "name: Tiny\n  shape: {hidden_size: 64}  # <-",
        ["model.shape", "only beside model.hub_id", "remove it"],
    ),
    "batch above rows": ("global_batch_size: 32", "global_batch_size: 2000  # <-", ["2000", "at most 1000"]),
    "run name": ("name: small", "name: ../small  # <-", ["../small", "letters, digits"]),
    "no model_type": ("model_type: qwen3, ", "", ["no model_type", "model_type: qwen3"]),
    "no tokenizer": ("  tokenizer_vocab_size: 300\n", "", ["exactly one of model.tokenizer", "neither"]),
    "vocabulary": ("tokenizer_vocab_size: 300", "tokenizer_vocab_size: 200  # <-", ["200", str(SMALLEST_VOCABULARY)]),
    "context": ("  max_length: 512", "  max_length: 513  # <-", ["513", "max_position_embeddings", "512"]),
    "room": (
        "max_tokens: 128",
        "max_tokens: 128  # <-\n  max_model_length: 64",
        ["longer than the context", "at most 64"],
    ),
    "digest": ("rows: 1000", "rows: 1000\n  sha256: abc  # <-", ["abc", "64 digits"]),
    "interpolation": ("epochs: 2", "epochs: ${trainin.epochs}  # <-", ["${trainin.epochs}", "does not exist"]),
    "interpolation circle": ("epochs: 2", "epochs: ${training.epochs}  # <-", ["cannot be resolved"]),
    "interpolation syntax": ("epochs: 2", "epochs: ${  # <-", ["cannot be resolved", "given: ${"]),
    "no mapping": (GOOD, "- 1  # <-\n", ["[1]", "mapping of sections"]),
    "tag": ("epochs: 2", "epochs: !!python/name:os.system 2  # <-", ["tag", "remove"]),
    "merge key": ("epochs: 2", "<<: {epochs: 2}  # <-", ["merge keys", "use include"]),
    "endless alias": (GOOD, "name: &a [*a]  # <-\n", ["nested too deeply"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_recipe(folder: Path, case: str) -> None:
    old, new, wanted = BROKEN[case]
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    (folder / "broken.yaml").write_text(text)
    reported = problems_of("broken", folder)
    numbers = [number for number, line in enumerate(text.splitlines(), start=1) if "# <-" in line]
    place = f"recipes/broken.yaml:{numbers[0]}:" if numbers else "recipes/broken.yaml:"
    fitting = [problem for problem in reported if problem.startswith(place) and all(part in problem for part in wanted)]
    assert len(fitting) == 1, "\n".join(reported)
    assert "to do: " in fitting[0]


def test_gpus_that_share_rows_share_the_heads(folder: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2}
    shape = json.dumps({**sizes, "intermediate_size": 96, "vocab_size": 300, "model_type": "qwen3"})
    no_config = ("model.config=null", "model.tokenizer_vocab_size=null")
    on_hub = (*no_config, "model.hub_id=a/b", f"model.shape={shape}")
    on_disk = (*no_config, f"model.path={model_folder(tmp_path / 'model')}")
    (tmp_path / "model" / "config.json").write_text(shape)
    for source in (on_hub, on_disk, (f"model.config={shape}",)):
        for parts in (1, 3, 6):  # 2 key-value heads are repeated
            load("good", (*source, f"training.sequence_parallel={parts}"), folder)
        (problem,) = problems_of("good", folder, (*source, "training.sequence_parallel=4"))
        assert "6 attention heads" in problem and "valid: 1, 2, 3, 6" in problem and "given: 4" in problem
    (problem,) = problems_of("good", folder, (*no_config, "model.hub_id=a/b", "model.shape={hidden_size: 5}"))
    assert "missing or unusable" in problem and "num_attention_heads" in problem
    (tmp_path / "model" / "config.json").write_text("{")
    load("good", (*on_disk, "training.sequence_parallel=4"), folder)  # not known, so not refused


def test_only_official_bf16_has_no_offload_and_its_own_batches(folder: Path) -> None:
    for words in (("arithmetic=standard",), ("arithmetic=official", "precision=fp32", "micro_batch_size=4")):
        load("good", [f"training.{word}" for word in (*words, "cpu_offload=true")], folder)
    load("good", ["training.global_batch_size=30", "training.checkpoint_steps=[66]"], folder)  # standard: any size
    official = ("training.arithmetic=official", "training.global_batch_size=30", "training.checkpoint_steps=[66]")
    (problem,) = problems_of("good", folder, official)
    assert "global_batch_size: 64" in problem and "or training.micro_batch_size" not in problem


def test_every_error_is_reported_at_once(folder: Path) -> None:
    text = GOOD.replace("epochs: 2", "epochs: two\n  shedule: cosine").replace("rows: 1000", "rows: 0")
    text = text.replace("name: small", "name: ${nothing}\ninclude: [gone]").replace("[10, 62]", "[62, 10]")
    text = text.replace("countdown: {items: 20}", "countdown: {items: 20}\n    nothing: {samples: x, samples: 1}")
    (folder / "broken.yaml").write_text(text)
    reported = problems_of("broken", folder, ("training.betas=[1, 0]", "oops", "model.path=/no/such/folder"))
    wanted = {
        "include: no such file",
        "samples: duplicate key",
        "not an override",
        "name: refers to a key that does not exist",
        "training.epochs: wrong type",
        "training.shedule: unknown key",
        "evaluation.benchmarks.nothing.samples: wrong type",
        "data.rows: out of range",
        "training.betas[0]: out of range",
        "model.config: exactly one source",
        "checkpoint_steps: not increasing",
        "nothing: unknown benchmark",
        "model.path: no such model folder",
    }
    assert {part for part in wanted if any(part in problem for problem in reported)} == wanted
    assert len(reported) == len(wanted), "\n".join(reported)
    with pytest.raises(UserError, match="recipe broken: 13 problems") as caught:
        load("broken", ("training.betas=[1, 0]", "oops", "model.path=/no/such/folder"), folder)
    assert all(problem in str(caught.value) for problem in reported)


def test_an_unusable_value_causes_no_further_problem(folder: Path) -> None:
    assert len(problems_of("good", folder, ("model.config=5",))) == 1
    assert len(problems_of("good", folder, ("training=5",))) == 1
    assert len(problems_of("good", folder, ("data=[1]",))) == 1


def test_include_cycle_over_files(folder: Path) -> None:
    (folder / "a.yaml").write_text("include: [b]\n")
    (folder / "b.yaml").write_text("include: [c]\n")
    (folder / "c.yaml").write_text("training: {seed: 1}\ninclude: [b]\n")
    (cycle,) = [problem for problem in problems_of("a", folder) if "cycle" in problem]
    assert cycle.startswith(
        "recipes/c.yaml:2: include: include cycle: recipes/b.yaml -> recipes/c.yaml -> recipes/b.yaml"
    )


def test_a_shared_fragment_is_read_once(folder: Path) -> None:
    (folder / "broken.yaml").write_text("training: [\n")
    for number in range(30):
        below = f"level{number - 1}" if number else "broken"
        (folder / f"level{number}.yaml").write_text(f"include: [{below}, {below}]\n")
    assert sum("YAML syntax" in problem for problem in problems_of("level29", folder)) == 1


def test_files_that_are_no_text(folder: Path) -> None:
    (folder / "broken.yaml").write_bytes(GOOD.encode() + b"# caf\xe9\n")
    (problem,) = [text for text in problems_of("broken", folder) if "UTF-8" in text]
    assert problem.startswith("recipes/broken.yaml:21:") and "0xe9" in problem


def write_rows(path: Path, count: int) -> Path:
    rows: dict[str, Any] = {"message": ["1 + 1?"] * count, "response": ["2"] * count}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(rows), path)
    else:
        path.write_text('{"message": "1 + 1?", "response": "2"}\n' * count)
    return path


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


LOCAL = ("data.generator=null", "data.rows=null", "model.config=null", "model.tokenizer_vocab_size=null")


@pytest.mark.parametrize("suffix", DATA_SUFFIXES)
def test_rows_of_local_files_are_counted(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"rows{suffix}", 100)
    overrides = (*LOCAL, f"data.path={path}", f"model.path={model_folder(tmp_path / 'model')}")
    recipe = load("good", (*overrides, "training.checkpoint_steps=[6]"), folder).recipe
    assert row_count(recipe) == 100 and total_steps(recipe) == 6
    (problem,) = problems_of("good", folder, (*overrides, "training.checkpoint_steps=[6]", "data.rows=99"))
    assert "the file has 100 rows" in problem and "given: 99" in problem
    write_rows(path, 64)
    assert row_count(recipe) == 64


def test_relative_paths(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        model_folder(place / "model")
        write_rows(place / "rows.parquet", 1000)
    model_folder(here / "only_here")
    (there / "mine.yaml").write_text("include: [good]\ndata: {generator: null, path: rows.parquet}\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("MODELS", str(here))
    mine, tail = str(there / "mine.yaml"), ("model.config=null", "model.tokenizer_vocab_size=null")
    recipe = load(mine, (*tail, "model.path=model"), folder).recipe
    assert recipe.data.path == str(there / "rows.parquet")  # of a file: beside it
    assert recipe.model.path == str(here / "model")  # of the command line: the current folder
    assert load(mine, (*tail, "model.path=$MODELS/model"), folder).recipe.model.path == str(here / "model")
    with (there / "mine.yaml").open("a") as stream:
        stream.write("model: {path: only_here, tokenizer: model}\n")
    model = load(mine, tail, folder).recipe.model
    assert model.path == str(here / "only_here")  # of a file, but not beside it: the current folder
    assert model.tokenizer == str(there / "model")
    assert load(mine, (*tail, "model.tokenizer=Qwen/Qwen3-0.6B"), folder).recipe.model.tokenizer == "Qwen/Qwen3-0.6B"


def test_files_that_are_missing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace("generator: countdown", "path: gone.parquet").replace("  config:", "  path: gone\n  seed: 1 #")
    text = text.replace("tokenizer_vocab_size: 300", "tokenizer: ./gone\n  chat_template: $NO_SUCH_VARIABLE/gone.jinja")
    (folder / "broken.yaml").write_text(text)
    reported = problems_of("broken", folder)
    assert len(reported) == 4, "\n".join(reported)
    for key, what in (("model.path", "gone"), ("model.tokenizer", "gone"), ("data.path", "gone.parquet")):
        (problem,) = [problem for problem in reported if f" {key}: " in problem]
        assert f"looked for {folder / what} and {tmp_path / what}" in problem
    assert any("environment variable in it is not set" in problem for problem in reported)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone.parquet").write_text("not parquet")
    reported = problems_of("broken", folder)
    assert any("has no config.json" in problem for problem in reported)
    assert any("not a readable parquet file" in problem for problem in reported)


def test_hub_data_needs_a_file(folder: Path) -> None:
    (problem,) = problems_of("good", folder, ("data.generator=null", "data.hub_id=a/b"))
    assert "data.file" in problem
    (problem,) = problems_of("good", folder, ("data.generator=null", "data.hub_id=a/b", "data.file=x.csv"))
    assert "x.csv" in problem and ".parquet, .jsonl" in problem


def test_resolved_recipe_loads_again(folder: Path, tmp_path: Path) -> None:
    for name in ("mini", "qwen_long_cot", "good"):
        loaded = load(name, ["training.epsilon=1e-9", "training.seed=3"], folder)
        path = tmp_path / "runs" / name / "recipe.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(loaded.to_yaml())
        assert "  epsilon: 1.0e-09  # command line\n" in loaded.to_yaml()
        assert load(str(path), (), folder).recipe == loaded.recipe
        assert load_resolved(path) == loaded.recipe
        values = [line for line in loaded.to_yaml().splitlines() if not line.endswith(":")]
        assert len(values) == len(loaded.origins) and all("  # " in line for line in values)


def test_resolved_recipe_needs_no_local_files(folder: Path, tmp_path: Path) -> None:
    data, model = write_rows(tmp_path / "rows.parquet", 1000), model_folder(tmp_path / "model")
    loaded = load("good", (*LOCAL, f"data.path={data}", f"model.path={model}"), folder)
    path = tmp_path / "recipe.yaml"
    path.write_text(loaded.to_yaml())
    data.unlink()
    assert load_resolved(path) == loaded.recipe
    path.write_text(loaded.to_yaml().replace("epochs: 2", "epochs: two"))
    with pytest.raises(RecipeError, match="epochs: wrong type"):
        load_resolved(path)


def test_loading_imports_nothing_heavy() -> None:
    program = "import sys; from reprokit.recipe import load; load('qwen_long_cot'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "omegaconf" in modules
    assert not {"torch", "transformers", "pyarrow", "vllm", "numpy", "reasoning_gym"} & set(modules)


def test_limits_agree_with_the_data_package() -> None:
    from reprokit.data import rows, tokenizer

    assert tuple(rows.GENERATORS) == GENERATORS
    assert tokenizer.SMALLEST_VOCABULARY == SMALLEST_VOCABULARY


def test_a_file_that_cannot_be_parsed_is_the_only_problem(folder: Path) -> None:
    (folder / "good.yaml").write_text(GOOD.replace("epochs: 2", "epochs: [2"))
    (problem,) = problems_of("good", folder)
    assert "recipes/good.yaml:" in problem and "YAML syntax" in problem
