"""Tokenizers whose ids can be told by hand: of the kinds of Qwen3, Qwen2.5 and InternLM2."""

from __future__ import annotations

import io
import json
from pathlib import Path

from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NEWLINES = 256  # the one merge: two line ends
END_OF_TEXT, IM_START, IM_END = 257, 258, 259
QWEN_SPECIAL = {"<|endoftext|>": END_OF_TEXT, "<|im_start|>": IM_START, "<|im_end|>": IM_END}

# Each says for itself what its model's template does; none is the text of that template.
PLAIN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = "You are a test."
SYSTEM_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n{% endif %}"
) + PLAIN_TEMPLATE
INTERNLM_TEMPLATE = "{{ bos_token }}" + PLAIN_TEMPLATE


def qwen_like(chat_template: str) -> PreTrainedTokenizerFast:
    """One id per byte, that byte, but for two line ends, which are one token; three special tokens; no BOS."""
    letter_of = {ord(letter): letter for letter in pre_tokenizers.ByteLevel.alphabet() if ord(letter) < 256}
    others = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(letter_of.values()), key=ord)
    missing = [byte for byte in range(256) if byte not in letter_of]  # byte-level BPE gives these letters of their own
    letter_of |= dict(zip(missing, others, strict=True))
    line_end = letter_of[ord("\n")]
    vocabulary = {letter: byte for byte, letter in letter_of.items()} | {line_end * 2: NEWLINES}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[(line_end, line_end)]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in QWEN_SPECIAL])
    assert {token: tokenizer.token_to_id(token) for token in QWEN_SPECIAL} == QWEN_SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def qwen_turn(role: str, content: str) -> list[int]:
    """Ids of a whole turn, by hand; `content` has no two line ends in a row."""
    return [IM_START, *role.encode(), 10, *content.encode(), IM_END, 10]


QWEN_GENERATION = [IM_START, *b"assistant\n"]

CORPUS = """What is 12 + 345? Please reason step by step, and put your final answer within \\boxed{}.
Let x be a number. Then the sum is 357, and the answer is the sum of the two numbers, is it not?
    for step in steps:
        answer = answer + step
user assistant system 1 2 3 4 5 6 7 8 9 0 ( ) = * - / { } \\ the number is the number and the answer is the answer
"""


def write_internlm_like(folder: Path, dummy_prefix: bool = False, strip_blanks: bool = False) -> Path:
    """Tokenizer files as an InternLM2 repository has them; returns the SentencePiece model.

    <s> is 1, </s> is 2; the last two pieces, unused in the SentencePiece model, are <|im_end|> and <|im_start|>.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.split("\n")),
        model_writer=written,
        model_type="bpe",
        vocab_size=380,
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=strip_blanks,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["<tool>"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = ModelProto()
    model.ParseFromString(written.getvalue())
    for number in range(2):
        piece = model.pieces.add()
        piece.piece, piece.score = f"[UNUSED_TOKEN_{number}]", -1000.0 - number
    model.trainer_spec.vocab_size = len(model.pieces)
    path = folder / "tokenizer.model"
    path.write_bytes(model.SerializeToString())
    added = {
        0: "<unk>",
        1: "<s>",
        2: "</s>",
        len(model.pieces) - 2: "<|im_end|>",
        len(model.pieces) - 1: "<|im_start|>",
    }
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    config = {
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "tokenizer_class": "InternLM2Tokenizer",
        "added_tokens_decoder": {str(number): {"content": token, **flags} for number, token in added.items()},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "chat_template": INTERNLM_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return path
