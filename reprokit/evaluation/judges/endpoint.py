"""A chat judge behind an OpenAI-compatible server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Any

from reprokit.benchmarks.interface import Question
from reprokit.errors import UserError
from reprokit.evaluation.judges.asking import cut
from reprokit.evaluation.judges.replies import Judgement, question_digest
from reprokit.recipe.schema import JudgeSection

THREADS = 8
RETRIES = 5  # of the library, with exponential back-off, as the server asks or 0.5 s to 8 s apart
SECONDS = 600.0  # for one reply
# Codes of a 400 that is about this question alone: no later try would be answered, the others may be.
REFUSALS = {"content_filter", "content_policy_violation", "invalid_prompt", "context_length_exceeded"}


class EndpointJudge:
    """A model that answers one user turn at temperature 0; refused questions have an empty reply.

    The body is cut by `tokenizer`, that of the evaluated model: the server's own is not known.

    Raises:
        UserError: no key in the environment; the server cannot be reached, refuses the key or has no such model.
            Other questions that were on their way are answered first.
    """

    def __init__(self, key: str, section: JudgeSection, max_tokens: int, tokenizer: Any) -> None:
        import openai

        self.place = f"evaluation.judges.{key}"
        self.section, self.max_tokens, self.tokenizer = section, max_tokens, tokenizer
        secret = os.environ.get(section.api_key_variable, "")
        if not secret:
            raise UserError(
                f"{self.place}: the environment variable {section.api_key_variable} with the key of "
                f"{section.endpoint} is not set in this job.\nExport it where you launch (any text, if the server "
                f"wants no key), or name another variable in {self.place}.api_key_variable."
            )
        self.client = openai.OpenAI(base_url=section.endpoint, api_key=secret, max_retries=RETRIES, timeout=SECONDS)

    def answer(self, questions: Sequence[Question]) -> Iterator[Judgement]:
        first: UserError | None = None
        pool = ThreadPoolExecutor(THREADS)
        try:
            running = [pool.submit(self._ask, question) for question in questions]
            for future in as_completed(running):
                if future.cancelled():
                    continue
                try:
                    yield future.result()
                except UserError as error:
                    first = first or error
                    _cancel(running)
        finally:
            # Where nobody takes the replies any more, as in a job that was told to leave, they are not waited for.
            pool.shutdown(wait=False, cancel_futures=True)
        if first is not None:
            raise first

    def _ask(self, question: Question) -> Judgement:
        import openai

        body, was_cut = cut(self.tokenizer, question.body, question.body_tokens)
        try:
            done = self.client.chat.completions.create(
                model=str(self.section.model),
                messages=[{"role": "user", "content": question.before + body + question.after}],
                temperature=0.0,
                max_tokens=self.max_tokens,
            )
        except openai.BadRequestError as error:
            if error.code not in REFUSALS:
                raise UserError(self._explain(error)) from None
            reply = ""
        except openai.APIError as error:
            raise UserError(self._explain(error)) from None
        else:
            reply = (done.choices[0].message.content or "") if done.choices else ""
        return Judgement(question=question_digest(question), reply=reply, cut=was_cut)

    def _explain(self, error: Exception) -> str:
        """What to do about it. The server's own words on a key are left out: some repeat a part of it."""
        import openai

        server, model, variable = self.section.endpoint, self.section.model, self.section.api_key_variable
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            what = f"{server} refuses the key ({error.status_code}). Check the environment variable {variable}."
        elif isinstance(error, openai.NotFoundError):
            what = f"{server} has no model {model!r} (404). Check {self.place}.model and the end of the URL."
        elif isinstance(error, openai.APIConnectionError):
            what = f"{server} cannot be reached: {error.__cause__ or error}. Jobs need a way to it; check the URL."
        elif isinstance(error, openai.RateLimitError):
            what = f"{server} allows no more requests at present (429), after {RETRIES} retries: {error.message}"
        else:
            what = f"{server} does not answer as it should: {error}"
        return f"{self.place}: {what}\nWhat was answered is kept: launch again for the rest."

    def __enter__(self) -> EndpointJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()


def _cancel(futures: Sequence[Future[Judgement]]) -> None:
    for future in futures:
        future.cancel()
