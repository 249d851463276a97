"""The tokenizer of InternLM2 from its SentencePiece model, without the code of its repository.

Text between special tokens gets the ids that SentencePiece gives it. InternLM2 uses some pieces of its model under
other names: `added_tokens_decoder` in `tokenizer_config.json` says, for example, that id 92543 is `<|im_start|>`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made when imported
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from reprokit.errors import UserError

_BPE = 2  # ModelProto.trainer_spec.model_type
_NORMAL, _USER_DEFINED = 1, 4  # ModelProto.SentencePiece.type
_NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
_PROBES = (
    "What is 12 + 345? Please reason step by step, and put your final answer within \\boxed{}.",
    "<think>\nLet $x^2 \\le \\frac{1}{2}$;  then\n\n\tdef f(x):\n        return x ** 2\n</think>\n\n**Answer**: ½",
    " leading, trailing and  double  blanks \n ",
    "数学：若 $a+b=3$，求 $a$。 Übung naïve Ωμέγα Привет 🙂 ∀ε∃δ \u200b\u3000",
    *(" " * blanks + "x" + "\n" * blanks for blanks in range(1, 33)),
)


def load_internlm2_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of an InternLM2 model folder: `tokenizer.model`, or `tokenizer.json` where there is no such file.

    Raises:
        UserError: a file is missing, or the model cannot be rebuilt so that it gives the ids of SentencePiece.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: fetch the model again, or set model.tokenizer")
    config = json.loads(path.read_bytes())
    added = _added_tokens(folder, config)
    if (folder / "tokenizer.model").is_file():
        backend = _from_sentencepiece(folder / "tokenizer.model", added)
    elif (folder / "tokenizer.json").is_file():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        raise UserError(f"{folder} has neither tokenizer.model nor tokenizer.json: set model.tokenizer")
    named = {name: _text(config.get(name), default) for name, default in _NAMED.items()}
    if config.get("add_bos_token", True):
        bos = named["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **named,
        extra_special_tokens=[token.content for token in added.values() if token.content not in named.values()],
        chat_template=config.get("chat_template"),
        clean_up_tokenization_spaces=False,
        name_or_path=str(folder),
    )


def _added_tokens(folder: Path, config: dict[str, Any]) -> dict[int, AddedToken]:
    """Special tokens by id, as `tokenizer_config.json` has them, in older repositories `added_tokens.json`."""
    path = folder / "added_tokens.json"
    older = json.loads(path.read_bytes()) if path.is_file() else {}
    listed = config.get("added_tokens_decoder") or {number: {"content": token} for token, number in older.items()}
    return {int(number): _added_token(token) for number, token in listed.items()}


def _text(token: Any, default: str) -> str:
    """A token of `tokenizer_config.json`, which is text or an object with it."""
    return token["content"] if isinstance(token, dict) else token or default


def _added_token(token: dict[str, Any]) -> AddedToken:
    return AddedToken(
        token["content"],
        single_word=token.get("single_word", False),
        lstrip=token.get("lstrip", False),
        rstrip=token.get("rstrip", False),
        normalized=token.get("normalized", False),
        special=token.get("special", True),
    )


def _from_sentencepiece(path: Path, added: dict[int, AddedToken]) -> Tokenizer:
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    if model.trainer_spec.model_type != _BPE:
        raise UserError(f"{path} is no byte-pair model, as those of InternLM2 are; set model.tokenizer")
    pieces = [added[number].content if number in added else piece.piece for number, piece in enumerate(model.pieces)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=_merges(model, set(added)),
            unk_token=pieces[model.trainer_spec.unk_id],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = _normalizer(model.normalizer_spec)
    decoding = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.normalizer_spec.add_dummy_prefix:
        decoding.append(decoders.Strip(" ", left=1))
    tokenizer.decoder = decoders.Sequence(decoding)
    matched_whole = [
        piece.piece for number, piece in enumerate(model.pieces) if piece.type == _USER_DEFINED and number not in added
    ]
    tokenizer.add_tokens([AddedToken(piece.replace("▁", " "), normalized=False) for piece in matched_whole])
    tokenizer.add_tokens([added[number] for number in sorted(added)])
    _check_ids(tokenizer, path, added)
    return tokenizer


def _merges(model: ModelProto, renamed: set[int]) -> list[tuple[str, str]]:
    """Pairs of pieces that are merged, in the order in which SentencePiece prefers them: by score of the result."""
    normal = {
        piece.piece: piece.score
        for number, piece in enumerate(model.pieces)
        if piece.type == _NORMAL and number not in renamed
    }
    found = []
    for piece, score in normal.items():
        for cut in range(1, len(piece)):
            if piece[:cut] in normal and piece[cut:] in normal:
                found.append((-score, cut, piece[:cut], piece[cut:]))
    return [(left, right) for _, _, left, right in sorted(found)]


def _normalizer(spec: Any) -> normalizers.Normalizer:
    """What SentencePiece does to text before it cuts it, in its order."""
    steps: list[Any] = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])


def _check_ids(tokenizer: Tokenizer, path: Path, added: dict[int, AddedToken]) -> None:
    """Raises UserError unless special tokens have their ids, and texts those of SentencePiece."""
    for number, token in added.items():
        if tokenizer.token_to_id(token.content) != number:
            raise UserError(f"{path}: {token.content} would not get its id {number}; set model.tokenizer")
    processor = SentencePieceProcessor(model_file=str(path))
    for text in _PROBES:
        ids, wanted = tokenizer.encode(text, add_special_tokens=False).ids, processor.encode(text)
        if ids != wanted:
            raise UserError(
                f"{path} cannot be rebuilt: {text!r:.60} would get the ids {ids} instead of {wanted}. "
                "Set model.tokenizer to a tokenizer of the same ids."
            )
