"""Reward models: a sequence classifier gives a question and its answer one number."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from reprokit.benchmarks.interface import Question
from reprokit.errors import UserError
from reprokit.evaluation.judges.replies import Judgement, question_digest


class RewardJudge:
    """Raw first logit for [user: before, assistant: body] in the chat template of the reward model.

    Source: official code (AlpacaEval): no generation prompt, the BOS of the template taken away because the
    tokenizer adds its own, one conversation at a time, bf16. A conversation beyond the positions of the model is cut
    on the right. Without a GPU in fp32.

    Raises:
        UserError: the folder is not a reward model, or a reward is not a number.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.folder = folder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        if loading["missing_keys"]:  # transformers would fill them with random numbers and go on
            missing = ", ".join(sorted(loading["missing_keys"])[:3])
            raise UserError(f"{folder.name} is not a reward model: it has no weights for {missing}")
        self.model.to(self.device).eval()
        self.positions: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def answer(self, questions: Sequence[Question]) -> Iterator[Judgement]:
        for question in questions:
            tokens = self._tokens(question)
            kept = tokens[: self.positions]
            reply = self._reward(kept)
            if not math.isfinite(reply):
                raise UserError(f"{self.folder.name} gave the reward {reply}: its weights are damaged or do not fit")
            yield Judgement(question=question_digest(question), reply=reply, cut=len(kept) < len(tokens))

    def _tokens(self, question: Question) -> list[int]:
        turns = [{"role": "user", "content": question.before}, {"role": "assistant", "content": question.body}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
        return list(self.tokenizer(text.removeprefix(self.tokenizer.bos_token or ""), verbose=False).input_ids)

    def _reward(self, tokens: list[int]) -> float:
        import torch

        with torch.inference_mode():
            logits = self.model(torch.tensor([tokens], device=self.device)).logits
        return float(logits[0, 0])

    def __enter__(self) -> RewardJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import torch

        del self.model
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
