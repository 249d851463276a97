"""Judges that write: a vLLM engine continues a text, or answers a user turn, greedily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from reprokit.benchmarks.interface import Question
from reprokit.errors import UserError
from reprokit.evaluation.engine import for_device
from reprokit.evaluation.judges.asking import cut
from reprokit.evaluation.judges.replies import Judgement, question_digest

WAITING = 512  # questions that the engine holds at a time: enough to keep it full


class CompletionJudge:
    """A local language model behind vLLM.

    A completion judge gets `before + body + after` as its tokenizer encodes a text, a chat judge as the one user turn
    of its chat template. A reply takes up to `max_tokens`, fewer where the context ends; a body that leaves no room
    for that, or for a quarter of a smaller context, is cut further than the question asks.

    Raises:
        UserError: the context has no room for the question without its body.
    """

    def __init__(self, folder: Path, chat: bool, max_tokens: int) -> None:
        import torch
        from transformers import AutoTokenizer
        from vllm import LLM

        self.folder, self.chat, self.max_tokens = folder, chat, max_tokens
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        # -1: the model's own context, or as much of it as the memory holds.
        options: dict[str, Any] = {"max_model_len": -1, "dtype": dtype, "disable_log_stats": True, **for_device()}
        self.llm: Any = LLM(model=str(folder), **options)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.context: int = self.llm.llm_engine.model_config.max_model_len

    def answer(self, questions: Sequence[Question]) -> Iterator[Judgement]:
        engine = self.llm.llm_engine
        waiting = list(enumerate(questions))[::-1]
        asked: dict[str, tuple[str, bool]] = {}  # request -> question, whether its body was cut
        while waiting or engine.has_unfinished_requests():
            while waiting and engine.get_num_unfinished_requests() < WAITING:
                number, question = waiting.pop()
                prompt, was_cut = self.prompt(question)
                engine.add_request(str(number), {"prompt_token_ids": prompt}, self._sampling(len(prompt)))
                asked[str(number)] = question_digest(question), was_cut
            for output in engine.step():
                if output.finished:
                    digest, was_cut = asked.pop(output.request_id)
                    yield Judgement(question=digest, reply=output.outputs[0].text, cut=was_cut)

    def prompt(self, question: Question) -> tuple[list[int], bool]:
        """Token ids of a question, and whether its body was cut."""
        body, was_cut = cut(self.tokenizer, question.body, question.body_tokens)
        tokens = self._encode(question.before + body + question.after)
        room = self.context - min(self.max_tokens, self.context // 4)
        if len(tokens) <= room:
            return tokens, was_cut
        without = len(self._encode(question.before + question.after))
        if without >= room:
            raise UserError(
                f"the judge {self.folder.name} has a context of {self.context} tokens, which has no room for its "
                f"question of {without} without the response. Name another one."
            )
        limit = room - without
        while len(tokens) > room:  # tokens at the seams are not the same as those of the parts
            body, _ = cut(self.tokenizer, question.body, limit)
            tokens = self._encode(question.before + body + question.after)
            limit -= max(1, len(tokens) - room)
        return tokens, True

    def _encode(self, text: str) -> list[int]:
        if not self.chat:
            return list(self.tokenizer(text, verbose=False).input_ids)
        turn = [{"role": "user", "content": text}]
        return list(
            self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=False)
        )

    def _sampling(self, prompt_tokens: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(temperature=0.0, max_tokens=min(self.max_tokens, self.context - prompt_tokens))

    def __enter__(self) -> CompletionJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        cleanup_dist_env_and_memory()  # vLLM hides its objects from the garbage collector; this shows them again
