"""A teacher that knows its answers by chance: a Qwen3 whose next token depends on the present token alone.

Its one layer adds nothing to the embeddings, of which every token of the chain has its own direction, and the output
head holds the logarithms of the chain's probabilities: what it writes is drawn from a Markov chain that is known.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from reprokit.data.rows import Row
from reprokit.data.tokenizer import END_OF_TEXT, train_tokenizer

# `<think>` w w ... `</think>` \boxed{digit}; after a line end, with which the prompt ends, it begins. Sometimes it does
# not end its thoughts, and sometimes its answer.
BOX = "\\boxed{"
CHAIN: dict[str, dict[str, float]] = {
    "\n": {"<think>": 1.0},
    "<think>": {"w": 1.0},
    "w": {"w": 0.99, "</think>": 0.0095, END_OF_TEXT: 0.0005},
    "</think>": {"\\": 1.0},
    **{left: {right: 1.0} for left, right in zip(BOX, BOX[1:], strict=False)},
    "{": {digit: 0.2 for digit in "12345"},
    **{digit: {"}": 1.0} for digit in "12345"},
    "}": {END_OF_TEXT: 0.9, "\\": 0.1},
}
HIDDEN = 64


def make_teacher(folder: Path) -> None:
    """Write the model and a tokenizer with one token per byte to `folder`."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer: Any = train_tokenizer([Row([{"role": "user", "content": "x"}], "x")], 261)
    states = [*CHAIN, END_OF_TEXT]
    ids = {state: tokenizer.convert_tokens_to_ids(_token(tokenizer, state)) for state in states}
    assert len(set(ids.values())) == len(states) < HIDDEN and None not in ids.values()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).float()
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.zero_()
        embeddings[:, HIDDEN - 1] = 1.0  # of all tokens that are not in the chain
        head.fill_(-30.0 / math.sqrt(HIDDEN))
        for direction, state in enumerate(states):
            embeddings[ids[state]] = torch.nn.functional.one_hot(torch.tensor(direction), HIDDEN).float()
            for following, share in CHAIN.get(state, {END_OF_TEXT: 1.0}).items():
                # The norm before the head makes the entry of the direction the square root of the width.
                head[ids[following], direction] = math.log(share) / math.sqrt(HIDDEN)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _token(tokenizer: Any, state: str) -> str:
    """The token of one byte or of a tag."""
    pieces: list[str] = tokenizer.tokenize(state)
    assert len(pieces) == 1, (state, pieces)
    return pieces[0]
