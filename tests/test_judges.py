"""Judges: the real libraries behind them, on tiny random models."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tokenizers.processors import TemplateProcessing

from reprokit import benchmarks
from reprokit.benchmarks.interface import Benchmark, Item, Question, Response, Score
from reprokit.data.rows import Row
from reprokit.data.tokenizer import train_tokenizer
from reprokit.errors import UserError
from reprokit.evaluation.judges import asking, reward, sources, stage
from reprokit.evaluation.judges.replies import Judgement, Replies, ReplyLog, describe, judges_for, question_digest
from reprokit.evaluation.share import Share
from reprokit.preparation import judges as preparation
from reprokit.recipe.judges import JUDGES
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import BenchmarkSection, EvaluationSection, JudgeSection, Recipe, TrainingSection
from reprokit.records.files import sha256_of_file, write_json, write_json_lines
from reprokit.records.result import Generation, Sample
from reprokit.records.run_directory import RunDirectory

ITEMS = 6
STEPS = (0, 8)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # random replies that depend on the question
}
TIED = LLAMA | {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True}
HEX_BENCHMARK, TRUTH_BENCHMARK, ALPACA_BENCHMARK = "hex_phi", "truthfulqa", "alpaca_eval"
ANSWERS = "The quick brown fox jumps over the lazy dog and says yes, it is true that 12 plus 30 is 42. "


def questions_of(item: Item, response: Response, judges: Mapping[str, str]) -> dict[str, Question]:
    """One question to every judge that is offered; a truth judge gets at most 12 tokens."""
    limits = {"truth": 12, "info": 12}
    tails = {"truth": "True:", "info": "Helpful:", "harm": "\nVerdict?"}
    return {
        key: Question(key, prompt + item.messages[0]["content"], response.text, tails.get(key, ""), limits.get(key))
        for key, prompt in judges.items()
    }


def standin(name: str) -> Benchmark:
    return Benchmark(name, name, None, lambda *_: Score.of(True, None), questions=questions_of, read=lambda _: [])


@pytest.fixture(autouse=True)
def _standins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "get", standin)


def recipe_of(judges: dict[str, dict[str, Any]], *names: str) -> Recipe:
    evaluation = EvaluationSection(
        benchmarks={name: BenchmarkSection() for name in names},
        judges={key: JudgeSection(**section) for key, section in judges.items()},
    )
    return Recipe("r", training=TrainingSection(checkpoint_steps=list(STEPS[1:])), evaluation=evaluation)


def tokenizer_with_bos() -> Any:
    """Adds `<s>` to every text, and has it in its chat template too, as Llama's do."""
    rows = [Row(message=[{"role": "user", "content": ANSWERS * 3}], response=ANSWERS)]
    tokenizer = train_tokenizer(rows, 320)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    return tokenizer


def make_run(root: Path, *names: str) -> RunDirectory:
    """A run with a tokenizer, items, and samples of two checkpoints; the last response of both is the same."""
    run = RunDirectory(root)
    tokenizer_with_bos().save_pretrained(run.tokenizer)
    for name in names:
        turn = [[{"role": "user", "content": f"Question {number}?"}] for number in range(ITEMS)]
        write_json_lines(run.items(name), [Item(str(number), turn[number], {}) for number in range(ITEMS)])
        digest = sha256_of_file(run.items(name))
        write_json(run.items_source(name), {"items": digest})
        for step in STEPS:
            texts = [f"{step}: {ANSWERS[: 9 * (number + 1)]}" for number in range(ITEMS - 1)] + ["the same"]
            write_json_lines(run.samples(step, name), [sample(name, n, text) for n, text in enumerate(texts)])
            made = {"step": step, "benchmark": name, "items": digest, "provenance": {}}
            settings = msgspec.to_builtins(sampling(EvaluationSection(benchmarks={name: BenchmarkSection()}), name))
            write_json(run.generation(step, name), Generation(settings=settings, **made))
    return run


def sample(benchmark: str, item: int, text: str) -> Sample:
    counts: dict[str, Any] = {"sample": 0, "seed": 0, "prompt_tokens": 1, "response_tokens": 1, "seconds": 1.0}
    return Sample(benchmark=benchmark, item=str(item), request="", text=text, finish_reason="stop", **counts)


DISTINCT = ITEMS * len(STEPS) - 1


def lines(run: RunDirectory) -> list[Judgement]:
    """Every line of every file of replies."""
    return [
        msgspec.json.decode(line, type=Judgement)
        for path in sorted(run.judgements.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def reward_run(root: Path, **config: Any) -> tuple[RunDirectory, Recipe]:
    run = make_run(root, ALPACA_BENCHMARK)
    recipe = recipe_of({"RB2": {"config": LLAMA | config}}, ALPACA_BENCHMARK)
    preparation.prepare_judges(run, recipe)
    return run, recipe


@pytest.fixture(scope="module")
def vllm_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """All four default judges, one after another in one process, three of them in vLLM, two with tied embeddings."""
    root = tmp_path_factory.mktemp("vllm") / "run"
    make_run(root, ALPACA_BENCHMARK, TRUTH_BENCHMARK, HEX_BENCHMARK)
    command = [sys.executable, "-c", "from tests.test_judges import stage_in_process as s; s()", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    marked = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return RunDirectory(root), json.loads(marked.removeprefix("RESULT"))


def four_judges() -> Recipe:
    long = {"max_position_embeddings": 120}
    judges = {"RB2": LLAMA, "truth": TIED, "info": LLAMA | {"tie_word_embeddings": True}, "harm": TIED | long}
    names = (ALPACA_BENCHMARK, TRUTH_BENCHMARK, HEX_BENCHMARK)
    return recipe_of({key: {"config": config} for key, config in judges.items()}, *names)


def stage_in_process() -> None:
    """Entry of the process of `vllm_run`."""
    from reprokit.evaluation.engine import claim_device

    claim_device(0, 2)
    run, recipe = RunDirectory(Path(sys.argv[1])), four_judges()
    benchmarks.get = standin
    preparation.prepare_judges(run, recipe)
    loads: Counter[str] = Counter()
    load = stage.load

    def counting(run: RunDirectory, recipe: Recipe, key: str) -> asking.Judge:
        loads[key] += 1
        return load(run, recipe, key)

    stage.load = counting
    for _ in range(2):  # the second time nothing is left to ask
        stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    print("RESULT", json.dumps(loads))


def test_each_judge_is_loaded_once_for_all_checkpoints(vllm_run: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, loads = vllm_run
    assert loads == {"RB2": 1, "truth": 1, "info": 1, "harm": 1}
    assert Counter(Counter(line.question for line in lines(run)).values()) == {1: 4 * DISTINCT}
    replies = {key: Replies(run, four_judges(), key) for key in loads}
    assert {key: len(found) for key, found in replies.items()} == dict.fromkeys(loads, DISTINCT)
    assert json.loads(run.progress("judge").read_text())["done"] == 4 * DISTINCT


@pytest.mark.parametrize("key", ["truth", "info", "harm"])
def test_a_written_reply_is_that_of_greedy_transformers(
    vllm_run: tuple[RunDirectory, dict[str, Any]], key: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, _ = vllm_run
    replies = Replies(run, four_judges(), key)
    model = AutoModelForCausalLM.from_pretrained(run.judge(key) / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(run.judge(key) / "model")
    cut = 0
    questions = list(stage.gather(run, four_judges())[key].values())
    for question in questions[:4] if key == "harm" else questions:  # whose replies fill the context
        if key == "harm":
            turn = [{"role": "user", "content": question.before + question.body + question.after}]
            tokens = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
            room = 120 - len(tokens)
        else:
            kept = tokenizer(question.body).input_ids[:12]  # of which one is <s>
            body = tokenizer.decode(kept, skip_special_tokens=True)
            cut += body != question.body
            tokens, room = tokenizer(question.before + body + question.after).input_ids, 16
        assert tokens.count(tokenizer.bos_token_id) == 1
        written = model.generate(torch.tensor([tokens]), max_new_tokens=room, do_sample=False)[0, len(tokens) :]
        expected = tokenizer.decode(written, skip_special_tokens=True)
        assert replies[question_digest(question)] == expected.rstrip("\ufffd")  # vLLM keeps back half a character
    assert replies.cut == cut and (cut > 0) == (key != "harm")
    assert len(set(replies.values())) > 1  # the model looks at the question


def test_a_body_is_cut_to_the_room_of_the_context(tmp_path: Path) -> None:
    """`prompt` of a judge without its engine: the context decides."""
    from reprokit.evaluation.judges.completion import CompletionJudge

    judge = CompletionJudge.__new__(CompletionJudge)
    judge.tokenizer, judge.context, judge.max_tokens, judge.chat = tokenizer_with_bos(), 100, 64, True
    judge.folder = tmp_path
    tokens, was_cut = judge.prompt(Question("harm", "Look: ", ANSWERS * 9, " END"))
    assert was_cut and 60 <= len(tokens) <= 75
    assert "END<|im_end|>" in judge.tokenizer.decode(tokens)
    assert judge.prompt(Question("harm", "Look: ", "short", " END"))[1] is False
    with pytest.raises(UserError, match="no room for its question"):
        judge.prompt(Question("harm", ANSWERS * 9, "short", ""))


@pytest.mark.parametrize(("limit", "kept"), [(None, 10), (11, 10), (10, 9), (2, 1), (1, 0), (0, 0)])
def test_cut_counts_tokens_as_the_tokenizer_adds_them(limit: int | None, kept: int) -> None:
    tokenizer = tokenizer_with_bos()
    text = "".join(f" {number}" for number in range(5))
    assert len(tokenizer.tokenize(text)) == 10 and tokenizer(text).input_ids[0] == tokenizer.bos_token_id
    expected = tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids[:kept])
    assert asking.cut(tokenizer, text, limit) == (expected, kept < 10)


def test_a_reward_is_the_logit_of_the_official_pipeline(tmp_path: Path) -> None:
    """Template without generation prompt, its BOS taken away, the tokenizer's own put in front."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    run, recipe = reward_run(tmp_path / "run")
    stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    replies = Replies(run, recipe, "RB2")
    folder = run.judge("RB2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    official = pipeline("text-classification", model=model, tokenizer=tokenizer, batch_size=1)
    questions = stage.gather(run, recipe)["RB2"]
    assert len(questions) == len(replies) == DISTINCT
    for digest, question in questions.items():
        text = f"<|im_start|>user\n{question.before}<|im_end|>\n<|im_start|>assistant\n{question.body}<|im_end|>\n"
        with torch.inference_mode():
            logits = model(torch.tensor([[tokenizer.bos_token_id, *tokenizer(text).input_ids[1:]]])).logits
        assert replies[digest] == float(logits[0, 0])
        assert replies[digest] == official([text], function_to_apply="none", top_k=None)[0][0]["score"]
    assert len(set(replies.values())) == DISTINCT and replies.cut == 0


def test_a_conversation_beyond_the_positions_is_cut_and_counted(tmp_path: Path) -> None:
    run, recipe = reward_run(tmp_path / "run", max_position_embeddings=40)
    stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    with reward.RewardJudge(run.judge("RB2") / "model") as judge:
        lengths = [len(judge._tokens(question)) for question in stage.gather(run, recipe)["RB2"].values()]
    assert Replies(run, recipe, "RB2").cut == sum(length > 40 for length in lengths) > 0
    assert min(lengths) <= 40


def test_a_language_model_is_not_taken_for_a_reward_model(tmp_path: Path) -> None:
    """transformers would give it a random head and answer."""
    run = make_run(tmp_path / "run")
    truth = recipe_of({"truth": {"config": LLAMA}}, TRUTH_BENCHMARK)
    preparation._make(run, "truth", LLAMA, run.judge("truth") / "model")
    with pytest.raises(UserError, match="no weights for score"):
        reward.RewardJudge(run.judge("truth") / "model")
    with pytest.raises(UserError, match="has to be a sequence classifier"):
        preparation.check_folder("RB2", run.judge("truth") / "model")
    assert sources.all_keys(truth) == ["truth", "info"]


SLOW = """
import sys, time
from pathlib import Path
from tests.test_judges import *
benchmarks.get = standin
seen = []
def answer(self, tokens):  # hangs once it has answered as many as it is to be killed after
    seen.append(tokens)
    time.sleep(600 if len(seen) > int(sys.argv[4]) else 0)
    return float(sum(tokens))
reward.RewardJudge._reward = answer
run = RunDirectory(Path(sys.argv[1]))
recipe = recipe_of({"RB2": {"config": LLAMA}}, ALPACA_BENCHMARK)
stage.judge(run, recipe, Share(int(sys.argv[2]), int(sys.argv[3])), run.progress("judge"))
"""


def start(run: RunDirectory, rank: int, world_size: int, answers: int) -> subprocess.Popen[bytes]:
    numbers = map(str, (rank, world_size, answers))
    return subprocess.Popen([sys.executable, "-c", SLOW, str(run.root), *numbers])


def test_killed_workers_lose_only_what_was_in_flight(tmp_path: Path) -> None:
    """Two workers are killed half-way, one of them in the middle of a line; another number of workers ends it."""
    run, recipe = reward_run(tmp_path / "run")
    workers = [start(run, rank, 2, answers=2) for rank in (0, 1)]
    deadline = time.monotonic() + 300
    while len(lines(run)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    kept = lines(run)
    assert len(kept) == 4
    (damaged,) = run.judgements.glob("*.0.jsonl")
    with damaged.open("ab") as stream:
        stream.write(b'{"question":"abc","rep')
    assert len(Replies(run, recipe, "RB2")) == len(kept)
    assert start(run, 0, 1, answers=DISTINCT).wait(timeout=300) == 0
    after = lines(run)
    assert {line.question: line.reply for line in kept}.items() <= {line.question: line.reply for line in after}.items()
    assert len(after) == len({line.question for line in after}) == DISTINCT
    assert {line.question for line in after} == set(stage.gather(run, recipe)["RB2"])


@pytest.mark.parametrize("world_size", [1, 2, 3, 16])
def test_shares_are_complete_disjoint_and_even(tmp_path: Path, world_size: int) -> None:
    questions = {question_digest(q): q for q in (Question("RB2", "?", "x" * length) for length in range(100))}
    shares = [stage.share_of(questions, Share(rank, world_size)) for rank in range(world_size)]
    assert sorted(digest for share in shares for digest in share) == sorted(questions)
    loads = [sum(len(question.body) for question in share.values()) for share in shares]
    assert max(loads) - min(loads) <= 100
    lengths = [len(question.body) for question in shares[0].values()]
    assert lengths == sorted(lengths, reverse=True)


def test_another_judge_reuses_no_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, recipe = reward_run(tmp_path / "run")
    monkeypatch.setattr(reward.RewardJudge, "_reward", lambda *_: 1.0)
    stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    first = describe(run, recipe, "RB2")
    other = recipe_of({"RB2": {"config": LLAMA | {"hidden_size": 32}}}, ALPACA_BENCHMARK)
    with pytest.raises(UserError, match="is not the one that was prepared"):
        stage.judge(run, other, Share(0, 1), run.progress("judge"))
    preparation.prepare_judges(run, other)
    assert len(Replies(run, other, "RB2")) == 0
    monkeypatch.setattr(reward.RewardJudge, "_reward", lambda *_: 2.0)
    stage.judge(run, other, Share(0, 1), run.progress("judge"))
    assert set(Replies(run, other, "RB2").values()) == {2.0}
    preparation.prepare_judges(run, recipe)  # and back: its replies are still there
    assert describe(run, recipe, "RB2") == first and set(Replies(run, recipe, "RB2").values()) == {1.0}


def test_changed_weights_of_the_same_shape_are_another_judge(tmp_path: Path) -> None:
    made, _ = reward_run(tmp_path / "made")
    folder = made.judge("RB2") / "model"
    run = make_run(tmp_path / "run", ALPACA_BENCHMARK)
    recipe = recipe_of({"RB2": {"path": str(folder)}}, ALPACA_BENCHMARK)
    preparation.prepare_judges(run, recipe)
    before = describe(run, recipe, "RB2")
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="has changed since it was prepared"):
        stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    preparation.prepare_judges(run, recipe)
    after = describe(run, recipe, "RB2")
    assert before["name"] == after["name"] == "model" and before["digest"] != after["digest"]


def test_a_reply_is_on_disk_as_soon_as_it_is_added(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    log = ReplyLog(run, "RB2", "d", 0)
    log.add(Judgement(question="q", reply=-0.1))
    assert [line.reply for line in lines(run)] == [-0.1]
    log.add(Judgement(question="r", reply="Ünï\n"))
    assert [line.reply for line in lines(run)] == [-0.1, "Ünï\n"]


PREPARED = {
    "a folder that is none": ("truth", {"path": "nowhere"}, "has no config.json"),
    "no weights": ("truth", {"path": "bare"}, r"has no weights \(\*.safetensors"),
    "a classifier that is to write": ("truth", {"path": "classifier"}, "has to be a language model"),
    "no chat template": ("harm", {"path": "mute"}, "has no chat template"),
    "no tokenizer": ("truth", {"path": "dumb"}, "no tokenizer that can be loaded"),
    "an unknown config": ("RB2", {"config": {"model_type": "lama"}}, "not a model that transformers can make"),
    "no such prompt": ("harm", {"config": LLAMA, "prompt": "nowhere.txt"}, "prompt=nowhere.txt cannot be read"),
    "an endpoint without model": ("harm", {"endpoint": "https://host/v1"}, "harm.model: the name of the model"),
    "an endpoint that is no URL": ("harm", {"endpoint": "host", "model": "m"}, "is no URL"),
    "a user in the endpoint": ("harm", {"endpoint": "https://me:pw@host/v1", "model": "m"}, "has a user in it"),
    "a reward model as endpoint": ("RB2", {"endpoint": "https://host/v1", "model": "m"}, "only a chat judge"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folders that cannot be used, each for a reason of its own."""
    root = tmp_path_factory.mktemp("folders")
    run = make_run(root / "run")
    preparation._make(run, "RB2", LLAMA, root / "classifier")
    preparation._make(run, "harm", LLAMA, root / "good")
    for name in ("bare", "mute", "dumb"):
        shutil.copytree(root / "good", root / name)
    (root / "bare" / "model.safetensors").unlink()
    (root / "mute" / "chat_template.jinja").unlink()
    for path in (root / "dumb").glob("tokenizer*"):
        path.unlink()
    return root


@pytest.mark.parametrize("case", PREPARED)
def test_a_judge_that_cannot_be_used_is_refused_before_any_job(case: str, folders: Path, tmp_path: Path) -> None:
    key, section, said = PREPARED[case]
    if "path" in section:
        section = {"path": str(folders / section["path"])}
    run = make_run(tmp_path / "run")
    recipe = recipe_of({key: section}, JUDGES[key].benchmark)
    others = {other: {"config": LLAMA} for other in sources.all_keys(recipe) if other != key}
    recipe = recipe_of({key: section, **others}, JUDGES[key].benchmark)
    with pytest.raises(UserError, match=said) as raised:
        preparation.prepare_judges(run, recipe)
    assert f"evaluation.judges.{key}" in str(raised.value) and "pw" not in str(raised.value)
    assert not sources.is_prepared(run, recipe)


def test_a_hub_judge_stays_at_the_commit_that_was_fetched(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a revision in the recipe, a later preparation does not take what is newest then."""
    fetched: list[tuple[str, str | None]] = []

    def fetch(hub_id: str, revision: str | None) -> Path:
        fetched.append((hub_id, revision))
        folder = tmp_path / "snapshots" / (revision or f"newest{len(fetched)}")
        shutil.copytree(folders / "classifier", folder)
        return folder

    monkeypatch.setattr(preparation, "fetch_model", fetch)
    run, recipe = make_run(tmp_path / "run"), recipe_of({}, ALPACA_BENCHMARK)
    for _ in range(2):
        preparation.prepare_judges(run, recipe)
        assert sources.is_prepared(run, recipe)
    default = "allenai/Llama-3.1-8B-Instruct-RM-RB2"
    assert fetched == [(default, None)]
    assert describe(run, recipe, "RB2")["name"] == f"{default}@newest1"
    assert sources.read(run, recipe, "RB2").revision == "newest1"
    pinned = recipe_of({"RB2": {"revision": "abc"}, "Sky": {"hub_id": "me/mine"}}, ALPACA_BENCHMARK)
    assert not sources.is_prepared(run, pinned)
    preparation.prepare_judges(run, pinned)
    assert fetched[1:] == [(default, "abc"), ("me/mine", None)]
    assert describe(run, pinned, "Sky")["name"] == "me/mine@newest3"


def test_an_unreachable_hub_names_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(hub_id: str, revision: str | None) -> Path:
        raise UserError("model.hub_id is wrong") from OSError("no way to the hub")

    monkeypatch.setattr(preparation, "fetch_model", fetch)
    with pytest.raises(UserError, match=r"(?s)evaluation.judges.RB2: .*no way to the hub.*judges.RB2.path"):
        preparation.prepare_judges(make_run(tmp_path / "run"), recipe_of({}, ALPACA_BENCHMARK))


def test_optional_judges_are_asked_where_the_recipe_lists_them(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert judges_for(run, recipe_of({}, ALPACA_BENCHMARK), ALPACA_BENCHMARK) == {"RB2": ""}
    listed = recipe_of({"Mis": {}, "truth": {}}, ALPACA_BENCHMARK)
    assert judges_for(run, listed, ALPACA_BENCHMARK) == {"RB2": "", "Mis": ""}
    assert judges_for(run, listed, "math500") == {}
    assert sources.all_keys(listed) == ["RB2", "Mis"]


def test_the_prompt_of_the_recipe_is_the_one_that_was_prepared(tmp_path: Path) -> None:
    """It is asked in jobs, where its file may be gone; another text is another judge."""
    run, prompt = make_run(tmp_path / "run", HEX_BENCHMARK), tmp_path / "prompt.txt"
    recipe = recipe_of({"harm": {"config": LLAMA, "prompt": str(prompt)}}, HEX_BENCHMARK)
    digests = set()
    for text in ("Judge this. ", "Judge that. "):
        prompt.write_text(text)
        assert not sources.is_prepared(run, recipe)
        preparation.prepare_judges(run, recipe)
        assert sources.is_prepared(run, recipe)
        digests.add(describe(run, recipe, "harm")["digest"])
    prompt.unlink()
    assert judges_for(run, recipe, HEX_BENCHMARK) == {"harm": "Judge that. "}
    questions = stage.gather(run, recipe)["harm"].values()
    assert len(digests) == 2 and all(question.before.startswith("Judge that. Q") for question in questions)


def test_random_judges_are_the_same_when_made_again_and_have_no_path_in_their_record(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        run, recipe = reward_run(tmp_path / name)
        found.append(describe(run, recipe, "RB2"))
    assert found[0] == found[1] and found[0]["name"] == "random llama"
    assert str(tmp_path) not in json.dumps(found)
