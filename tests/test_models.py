"""The paper's base models: sizes and templates of the fragments, InternLM2 as a Llama model and its tokenizer."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from reprokit.errors import UserError
from reprokit.preparation import internlm2
from reprokit.preparation.base_model import complete_tokenizer, prepare_base, prepare_tokenizer
from reprokit.preparation.sentencepiece_tokenizer import load_internlm2_tokenizer
from reprokit.recipe import architecture, load
from reprokit.recipe.schema import ModelSection, Precision
from reprokit.records.run_directory import RunDirectory
from tests.tokenizers import qwen_like, write_internlm_like

FRAGMENTS = Path(__file__).parents[1] / "recipes" / "models"
BILLIONS = {  # as the model cards count; Gemma3-27B without its vision tower
    "qwen3_0_6b_base": 0.596,
    "qwen3_1_7b_base": 1.72,
    "qwen3_4b_base": 4.02,
    "qwen3_8b_base": 8.19,
    "qwen3_14b_base": 14.77,
    "qwen3_32b": 32.76,
    "qwen2_5_1_5b": 1.54,
    "qwen2_5_3b": 3.09,
    "qwen2_5_7b": 7.62,
    "qwen2_5_14b": 14.77,
    "gemma3_1b_pt": 1.00,
    "gemma3_27b_pt": 27.0,
    "internlm2_5_20b": 19.86,
}


def model_of(fragment: str, folder: Path) -> ModelSection:
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"include: [models/{fragment}, data/math_cot_20k, training/paper, evaluation/paper]\nname: x\n"
        "training: {learning_rate: 5.0e-5, epochs: 1, global_batch_size: 256, checkpoint_steps: [80]}\n"
    )
    return load(str(recipe)).recipe.model


def test_every_fragment_has_the_parameters_of_its_model(tmp_path: Path) -> None:
    assert {path.stem for path in FRAGMENTS.glob("*.yaml")} == set(BILLIONS)
    for fragment, billions in BILLIONS.items():
        model = model_of(fragment, tmp_path)
        sizes = architecture.of_model(model)
        assert sizes is not None and sizes.context is not None and sizes.context >= 20000, fragment
        print(f"{model.name}: {sizes.parameters / 1e9:.3f} billion parameters")
        assert sizes.parameters == pytest.approx(billions * 1e9, rel=0.015), fragment


@pytest.mark.parametrize("fragment", ["qwen3_1_7b_base", "qwen2_5_1_5b", "internlm2_5_20b", "gemma3_1b_pt"])
def test_transformers_counts_the_same_parameters(fragment: str, tmp_path: Path) -> None:
    """The fields are enough to make the model, on the meta device, with as many parameters as we say."""
    from transformers import AutoConfig

    model = model_of(fragment, tmp_path)
    assert model.shape is not None
    fields = {**model.shape, "model_type": model.shape["model_type"].replace("internlm2", "llama")}
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))
    sizes = architecture.of_model(model)
    assert sizes is not None
    assert made.num_parameters() == pytest.approx(sizes.parameters, rel=1e-3)


CONVERSATION = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]


def rendered(template: Path, messages: list[dict[str, str]], bos: str | None = None) -> str:
    tokenizer = qwen_like(template.read_text())
    tokenizer.bos_token = bos
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def test_the_qwen_template_adds_no_system_turn(tmp_path: Path) -> None:
    template = FRAGMENTS / "qwen_no_system.jinja"
    for size in ("1_5b", "3b", "7b", "14b"):
        assert model_of(f"qwen2_5_{size}", tmp_path).chat_template == str(template)
    turns = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
    assert rendered(template, CONVERSATION) == turns + "<|im_start|>assistant\n"
    given = [{"role": "system", "content": "s"}, *CONVERSATION]
    assert rendered(template, given) == "<|im_start|>system\ns<|im_end|>\n" + turns + "<|im_start|>assistant\n"


def test_the_gemma_template(tmp_path: Path) -> None:
    template = Path(model_of("gemma3_27b_pt", tmp_path).chat_template or "")
    assert rendered(template, CONVERSATION, bos="<bos>") == (
        "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
    )


# InternLM2 written down a second time, from its description, for comparison.

SIZES: dict[str, Any] = {
    "model_type": "internlm2",
    "architectures": ["InternLM2ForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
Weights = dict[str, torch.Tensor]


def random_weights(sizes: dict[str, Any]) -> Weights:
    hidden, inner, vocabulary = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
    head = hidden // sizes["num_attention_heads"]
    projected = (sizes["num_attention_heads"] + 2 * sizes["num_key_value_heads"]) * head
    generator = torch.Generator().manual_seed(0)

    def matrix(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    weights = {"model.tok_embeddings.weight": matrix(vocabulary, hidden), "output.weight": matrix(vocabulary, hidden)}
    weights["model.norm.weight"] = 1 + 0.1 * matrix(hidden)
    for layer in range(sizes["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        weights[at + "attention.wqkv.weight"] = matrix(projected, hidden)
        weights[at + "attention.wo.weight"] = matrix(hidden, hidden)
        if sizes.get("bias"):
            weights[at + "attention.wqkv.bias"] = matrix(projected)
            weights[at + "attention.wo.bias"] = matrix(hidden)
        weights[at + "feed_forward.w1.weight"] = matrix(inner, hidden)
        weights[at + "feed_forward.w3.weight"] = matrix(inner, hidden)
        weights[at + "feed_forward.w2.weight"] = matrix(hidden, inner)
        weights[at + "attention_norm.weight"] = 1 + 0.1 * matrix(hidden)
        weights[at + "ffn_norm.weight"] = 1 + 0.1 * matrix(hidden)
    return weights


def normed(states: torch.Tensor, scale: torch.Tensor, epsilon: float) -> torch.Tensor:
    return scale * states * (states.square().mean(-1, keepdim=True) + epsilon).rsqrt()


def rotated(states: torch.Tensor, sizes: dict[str, Any]) -> torch.Tensor:
    """Rotary embedding of [length, head size]: coordinate i turns with coordinate i + half."""
    length, size = states.shape
    base, factor, known = sizes["rope_theta"], sizes["rope_scaling"]["factor"], sizes["max_position_embeddings"]
    if length > known:
        base *= (factor * length / known - factor + 1) ** (size / (size - 2))
    half = size // 2
    turned = torch.empty_like(states)
    for i in range(half):
        angle = torch.arange(length) * base ** (-2 * i / size)
        turned[:, i] = states[:, i] * angle.cos() - states[:, i + half] * angle.sin()
        turned[:, i + half] = states[:, i + half] * angle.cos() + states[:, i] * angle.sin()
    return turned


def attention(states: torch.Tensor, weights: Weights, at: str, sizes: dict[str, Any]) -> torch.Tensor:
    heads, groups = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    size, per_group = sizes["hidden_size"] // heads, heads // groups
    projected = states @ weights[at + "wqkv.weight"].T + weights.get(at + "wqkv.bias", torch.zeros(1))
    future = torch.ones(len(states), len(states)).triu(1).bool()
    found = []
    for group in range(groups):
        start = group * (per_group + 2) * size
        rows = [projected[:, start + place * size : start + (place + 1) * size] for place in range(per_group + 2)]
        key, value = rotated(rows[per_group], sizes), rows[per_group + 1]
        for query in rows[:per_group]:
            scores = rotated(query, sizes) @ key.T / math.sqrt(size)
            found.append(scores.masked_fill(future, -math.inf).softmax(-1) @ value)
    return torch.cat(found, dim=-1) @ weights[at + "wo.weight"].T + weights.get(at + "wo.bias", torch.zeros(1))


def reference_logits(ids: torch.Tensor, weights: Weights, sizes: dict[str, Any]) -> torch.Tensor:
    """Logits [length, vocabulary] of ids [length]."""
    states, epsilon = weights["model.tok_embeddings.weight"][ids], sizes["rms_norm_eps"]
    for layer in range(sizes["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        inner = normed(states, weights[at + "attention_norm.weight"], epsilon)
        states = states + attention(inner, weights, at + "attention.", sizes)
        inner = normed(states, weights[at + "ffn_norm.weight"], epsilon)
        gate = torch.nn.functional.silu(inner @ weights[at + "feed_forward.w1.weight"].T)
        gated = gate * (inner @ weights[at + "feed_forward.w3.weight"].T)
        states = states + gated @ weights[at + "feed_forward.w2.weight"].T
    return normed(states, weights["model.norm.weight"], epsilon) @ weights["output.weight"].T


def write_internlm2(folder: Path, sizes: dict[str, Any], weights: Weights, files: int = 1) -> Path:
    """A model folder as an InternLM2 repository has it, but for its code."""
    write_internlm_like(folder)
    (folder / "config.json").write_text(json.dumps(sizes))
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    names = sorted(weights)
    for number in range(files):
        save_file({name: weights[name] for name in names[number::files]}, folder / f"model-{number}.safetensors")
    return folder


@pytest.mark.parametrize(("bias", "length"), [(False, 100), (True, 100), (False, 200)])
def test_internlm2_gives_the_same_logits_as_a_llama_model(bias: bool, length: int, tmp_path: Path) -> None:
    """Three query heads per key-value head; 200 tokens are more than the 128 up to which nothing is scaled."""
    sizes = {**SIZES, "bias": bias}
    weights = random_weights(sizes)
    source = write_internlm2(tmp_path / "internlm2", sizes, weights, files=2)
    run = RunDirectory(tmp_path / "run")
    model = ModelSection(name="x", path=str(source))
    tokenizer = prepare_tokenizer(run, model, source, [])
    prepare_base(run, model, Precision.fp32, source, tokenizer)
    complete_tokenizer(run)
    assert run.weights(0) == run.checkpoint(0)
    converted = AutoModelForCausalLM.from_pretrained(run.weights(0), dtype=torch.float32)
    assert isinstance(converted, LlamaForCausalLM)
    ids = torch.randint(64, (length,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = converted(ids[None], use_cache=False).logits[0]
    wanted = reference_logits(ids, weights, sizes)
    difference = (found - wanted).abs().max().item()
    print(f"InternLM2 as Llama, bias {bias}, {length} tokens: largest difference of logits {difference:.2e}")
    assert wanted.abs().max() > 1 and difference <= 1e-5
    read_back = {path.name for path in run.checkpoint(0).iterdir()}
    assert {"manifest.json", "config.json", "generation_config.json", "tokenizer.json"} <= read_back


def test_the_difference_would_show(tmp_path: Path) -> None:
    """Two heads swapped in `wqkv` change the logits by far more than the tolerance."""
    weights = random_weights(SIZES)
    ids = torch.arange(40)
    before = reference_logits(ids, weights, SIZES)
    swapped = weights["model.layers.0.attention.wqkv.weight"].clone()
    swapped[[*range(8), *range(8, 16)]] = swapped[[*range(8, 16), *range(8)]]
    after = reference_logits(ids, {**weights, "model.layers.0.attention.wqkv.weight": swapped}, SIZES)
    assert (before - after).abs().max() > 1e-2


def test_a_converted_model_is_written_in_several_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = random_weights(SIZES)
    source = write_internlm2(tmp_path / "internlm2", SIZES, weights)
    tokenizer = load_internlm2_tokenizer(source)
    internlm2.convert(source, tmp_path / "whole", tokenizer, 0, None)
    monkeypatch.setattr("reprokit.training.shards.MAX_SHARD_BYTES", 40_000)
    internlm2.convert(source, tmp_path / "parts", tokenizer, 0, None)
    files = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(files) > 2 and (tmp_path / "parts" / "model.safetensors.index.json").exists()
    parts = {name: tensor for path in files for name, tensor in load_file(path).items()}
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert parts.keys() == whole.keys() and all(torch.equal(parts[name], whole[name]) for name in whole)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "parts", dtype=torch.float32).state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        ("pickled", r"only pickled weights .* give a folder or revision of the model with \*.safetensors"),
        ("none", "has no weights"),
        ("cut", r"model-0.safetensors is damaged"),
        ("lacking", "lacks weights: lm_head.weight"),
        ("shape", r"model.layers.0.attention.wqkv.weight, \[80, 48\] F32, is no tensor of the model"),
        ("scaling", r"rope_scaling is .* valid types: dynamic, linear"),
    ],
)
def test_weights_that_do_not_fit_are_refused(harm: str, complaint: str, tmp_path: Path) -> None:
    weights = random_weights(SIZES)
    sizes = {**SIZES, "rope_scaling": {"type": "yarn", "factor": 2.0}} if harm == "scaling" else SIZES
    if harm == "lacking":
        del weights["output.weight"]
    if harm == "shape":
        sizes = {**SIZES, "num_key_value_heads": 3}
    source = write_internlm2(tmp_path / "internlm2", sizes, weights)
    file = source / "model-0.safetensors"
    if harm in ("pickled", "none"):
        file.unlink()
    if harm == "pickled":
        (source / "pytorch_model.bin").write_bytes(b"anything")
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=complaint):
        internlm2.convert(source, tmp_path / "step_000000", load_internlm2_tokenizer(source), 0, None)
    assert [path.name for path in tmp_path.iterdir()] == ["internlm2"]


def test_code_of_a_model_folder_is_never_run(tmp_path: Path) -> None:
    source = write_internlm2(tmp_path / "internlm2", SIZES, random_weights(SIZES))
    for name in ("modeling_internlm2.py", "tokenization_internlm2.py", "configuration_internlm2.py"):
        (source / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    run = RunDirectory(tmp_path / "run")
    model = ModelSection(name="x", path=str(source))
    prepare_base(run, model, Precision.fp32, source, prepare_tokenizer(run, model, source, []))
    AutoModelForCausalLM.from_pretrained(run.weights(0))
    assert not (tmp_path / "ran").exists()
    assert not list(run.root.rglob("*.py"))


@pytest.mark.parametrize("dummy_prefix", [False, True])
@pytest.mark.parametrize("strip_blanks", [False, True])
def test_ids_are_those_of_sentencepiece(dummy_prefix: bool, strip_blanks: bool, tmp_path: Path) -> None:
    """Random texts, by the tokenizer as it is found beside a Llama model, as training, evaluation and vLLM find it."""
    path = write_internlm_like(tmp_path / "internlm2", dummy_prefix, strip_blanks)
    load_internlm2_tokenizer(path.parent).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    sentencepiece = SentencePieceProcessor(model_file=str(path))
    generator = random.Random(0)
    words = [
        "the",
        " answer",
        "  ",
        "\n",
        "\t",
        "12",
        "+",
        "\\boxed{",
        "}",
        "é",
        "数学",
        "🙂",
        "is",
        " ",
        "x",
        "<|",
        ">",
    ]
    texts = ["".join(generator.choices(words, k=generator.randrange(12))) for _ in range(2000)]
    assert [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts] == sentencepiece.encode(texts)
    special = len(sentencepiece) - 1
    assert tokenizer("<|im_start|>the", add_special_tokens=False)["input_ids"] == [
        special,
        *sentencepiece.encode("the"),
    ]
    assert tokenizer("the")["input_ids"] == [1, *sentencepiece.encode("the")]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2) and len(tokenizer) == len(sentencepiece)
    if not dummy_prefix:  # pieces that SentencePiece always takes whole
        assert tokenizer("a<tool>b", add_special_tokens=False)["input_ids"] == sentencepiece.encode("a<tool>b")


def test_an_older_repository_lists_its_special_tokens_elsewhere(tmp_path: Path) -> None:
    source = write_internlm_like(tmp_path / "internlm2").parent
    made = load_internlm2_tokenizer(source)
    config = json.loads((source / "tokenizer_config.json").read_text())
    listed = config.pop("added_tokens_decoder")
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    (source / "added_tokens.json").write_text(json.dumps({token["content"]: int(n) for n, token in listed.items()}))
    text = "<|im_start|>user\nthe answer<|im_end|>"
    assert load_internlm2_tokenizer(source)(text)["input_ids"] == made(text)["input_ids"]


def test_a_tokenizer_json_will_do_and_nothing_will_not(tmp_path: Path) -> None:
    source = write_internlm_like(tmp_path / "internlm2").parent
    made = load_internlm2_tokenizer(source)
    made.save_pretrained(tmp_path / "saved")
    shutil.copyfile(tmp_path / "saved" / "tokenizer.json", source / "tokenizer.json")
    (source / "tokenizer.model").unlink()
    again = load_internlm2_tokenizer(source)
    text = "<|im_start|>user\nthe answer<|im_end|>"
    assert again(text)["input_ids"] == made(text)["input_ids"] and again.eos_token_id == 2
    (source / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="neither tokenizer.model nor tokenizer.json: set model.tokenizer"):
        load_internlm2_tokenizer(source)
