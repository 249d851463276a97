"""A small byte-level BPE tokenizer with Qwen-like chat turns, for models that start from random weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reprokit.data.rows import Row
from reprokit.errors import UserError

END_OF_TEXT = "<|endoftext|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, TURN_START, TURN_END]
THINK = ["<think>", "</think>"]  # one token each, but not special: they stay in generated text
SMALLEST_VOCABULARY = 256 + len(SPECIAL) + len(THINK)

# Words, numbers of up to three digits and runs of signs, each with the space before it: a frequent number
# becomes one token, whatever its digits.
_PIECES = r" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = (
    "{%- for turn in messages -%}"
    "{{- '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>' + '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def train_tokenizer(rows: Iterable[Row], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on `rows`; any text can be encoded, and decoding gives it back.

    The vocabulary has at most `vocab_size` entries, fewer if the rows have too little text. The end of a response
    is `<|endoftext|>`, as with Qwen3 base models, which is also the padding.

    Raises:
        UserError: `vocab_size` has no room for the bytes and the fixed tokens.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"model.tokenizer_vocab_size is {vocab_size}; give at least {SMALLEST_VOCABULARY} "
            f"(256 bytes, {len(SPECIAL)} special tokens, {len(THINK)} think tags)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(THINK),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(rows), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START, TURN_END],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _texts(rows: Iterable[Row]) -> Iterator[str]:
    """Everything that is tokenised, without the tokens that are fixed."""
    for row in rows:
        for turn in row.message:
            yield turn["role"] + "\n" + turn["content"]
        yield "assistant\n"
        yield from re.split("|".join(THINK), row.response)
