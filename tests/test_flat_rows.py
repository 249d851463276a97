"""Rows without padding compute what padded rows compute: attention, loss, gradients, for every kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from reprokit.errors import UserError
from reprokit.recipe.schema import Precision
from reprokit.training import attention, loss
from reprokit.training.batches import IGNORED, SequenceShard, flatten
from reprokit.training.model import TrainedModel, check_logits

SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {"model_type": "qwen3", **SMALL},
    "qwen3-tied": {"model_type": "qwen3", **SMALL, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", **SMALL},
    "llama": {"model_type": "llama", **SMALL},
    "gemma3-text": {"model_type": "gemma3_text", **SMALL, "sliding_window": 5,
                    "layer_types": ["sliding_attention", "full_attention"]},
    "gemma3": {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **SMALL, "sliding_window": 5},
               "vision_config": {"model_type": "siglip_vision_model", **VISION}, "mm_tokens_per_image": 4},
}  # fmt: skip
ROWS = [(23, 4), (9, 8), (1 + 16, 1), (6, 3)]  # tokens, prompt tokens


def dataset() -> Any:
    generator = np.random.default_rng(0)
    rows = [(generator.integers(3, 97, size=length), prompt) for length, prompt in ROWS]

    class Rows(list):  # type: ignore[type-arg]
        lengths = np.array([length for length, _ in ROWS])
        prompt_lengths = np.array([prompt for _, prompt in ROWS])

    return Rows(rows)


def small_model(name: str, implementation: str) -> Any:
    torch.manual_seed(0)
    fields = dict(MODELS[name])
    config = AutoConfig.for_model(**fields)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=torch.float32)
    return model.train()


def padded_loss(model: Any, rows: Any) -> torch.Tensor:
    """Summed token loss the plain way: right padding, full logits."""
    total = torch.zeros(())
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for index, (tokens, prompt) in enumerate(rows):
        ids[index, : len(tokens)] = torch.from_numpy(tokens)
        mask[index, : len(tokens)] = 1
        labels[index, prompt : len(tokens)] = torch.from_numpy(tokens[prompt:])
    extra = {"token_type_ids": torch.zeros_like(ids)} if model.config.model_type == "gemma3" else {}
    logits = model(input_ids=ids, attention_mask=mask, **extra).logits
    total = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    return total


@pytest.mark.parametrize("name", MODELS)
def test_flat_rows_have_the_loss_and_gradients_of_padded_rows(name: str) -> None:
    attention.register(Precision.fp32, None)
    plain = small_model(name, "eager")
    ours = small_model(name, attention.NAME)
    ours.load_state_dict(plain.state_dict())
    ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained, rows = TrainedModel(ours), dataset()
    expected = padded_loss(plain, rows)
    expected.backward()
    got = trained(flatten(rows, tuple(range(len(rows))), SequenceShard()))
    got.backward()
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    others = dict(plain.named_parameters())
    worst = 0.0
    for key, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            assert "vision" in key or "projector" in key
            continue
        reference = others[key].grad
        worst = max(worst, float((parameter.grad - reference).norm() / reference.norm().clamp(min=1e-3)))
    print(f"\n{name}: loss {got.item():.6f}, largest relative difference of a gradient {worst:.1e}")
    assert worst <= 1e-5


def test_no_row_sees_another() -> None:
    attention.register(Precision.fp32, None)
    trained, rows = TrainedModel(small_model("qwen3", attention.NAME)), dataset()
    together = trained(flatten(rows, (0, 1, 2, 3), SequenceShard())).item()
    apart = [trained(flatten(rows, (row,), SequenceShard())).item() for row in range(4)]
    assert together == pytest.approx(sum(apart), rel=1e-6)


def test_targets_are_response_and_eos_at_the_position_before_each() -> None:
    rows = dataset()
    batch = flatten(rows, (1, 3), SequenceShard())
    (first, _), (second, _) = rows[1], rows[3]
    assert batch.input_ids[0].tolist() == [*first, *second]
    assert batch.position_ids[0].tolist() == [*range(9), *range(6)]
    assert batch.boundaries.tolist() == [0, 9, 15] and batch.longest == 9
    assert batch.predicting.tolist() == [7, 11, 12, 13]
    assert batch.targets.tolist() == [first[8], *second[3:]]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_shards_of_a_row_make_up_the_whole(count: int) -> None:
    rows = dataset()
    whole = flatten(rows, (0, 1), SequenceShard())
    shards = [flatten(rows, (0, 1), SequenceShard(index, count)) for index in range(count)]
    assert len({shard.input_ids.shape for shard in shards}) == 1
    joined = torch.cat([shard.input_ids for shard in shards], dim=1)[0]
    assert joined[:32].tolist() == whole.input_ids[0].tolist()
    assert all(shard.boundaries.tolist() == shards[0].boundaries.tolist() for shard in shards)
    wanted = [token for shard in shards for token in shard.targets.tolist() if token != IGNORED]
    assert wanted == whole.targets.tolist()


def test_a_shard_without_targets_still_computes() -> None:
    shard = flatten(dataset(), (1,), SequenceShard(0, 3))
    assert shard.targets.tolist() == [IGNORED]
    hidden = torch.randn(1, 8, requires_grad=True)
    weight = torch.randn(11, 8, requires_grad=True)
    total = loss.token_loss_sum(hidden, weight, shard.targets)
    total.backward()
    assert total.item() == 0 and not hidden.grad.any() and not weight.grad.any()


@pytest.mark.parametrize("logits_at_a_time", [1, 40, 10**9])
def test_the_loss_in_pieces_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, logits_at_a_time: int) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_A_TIME", logits_at_a_time)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(9, 6, generator=generator, requires_grad=True)
    weight = torch.randn(11, 6, generator=generator, requires_grad=True)
    targets = torch.tensor([3, 0, IGNORED, 10, 5, 5, IGNORED, 1, 2])
    (3.0 * loss.token_loss_sum(hidden, weight, targets)).backward()
    got = [hidden.grad.clone(), weight.grad.clone()]
    hidden.grad = weight.grad = None
    expected = functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    (3.0 * expected).backward()
    torch.testing.assert_close(got, [hidden.grad, weight.grad])


def test_logits_never_exist_whole() -> None:
    """4,096 positions over a vocabulary of 50,000: 781 MiB of fp32 logits, of which a few MiB are alive at a time."""
    hidden = torch.randn(4096, 8, requires_grad=True)
    weight = torch.randn(50_000, 8, requires_grad=True)
    targets = torch.randint(0, 50_000, (4096,))
    with torch.profiler.profile(profile_memory=True) as profile:
        loss.token_loss_sum(hidden, weight, targets).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4 * loss.LOGITS_AT_A_TIME * 4


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logit_scale", "logits_scaling"])
def test_architectures_that_change_their_logits_are_refused(name: str) -> None:
    model = small_model("qwen3", "eager")
    setattr(model.config, name, 30.0)
    with pytest.raises(UserError, match=f"kind qwen3 with {name}=30.0 cannot be trained"):
        check_logits(model)


def test_a_head_with_a_bias_is_refused() -> None:
    model = small_model("qwen3", "eager")
    model.set_output_embeddings(torch.nn.Linear(32, 97, bias=True))
    with pytest.raises(UserError, match="their output head has a bias"):
        check_logits(model)


def test_attention_that_is_not_plain_is_refused() -> None:
    states = torch.zeros(1, 2, 4, 8)
    edges = torch.tensor([0, 4], dtype=torch.int32)
    for option in ({"softcap": 50.0}, {"s_aux": torch.zeros(2)}):
        with pytest.raises(UserError, match="caps its attention scores or has attention sinks"):
            attention.attend(torch.nn.Module(), states, states, states, None, boundaries=edges, longest=4, **option)
