"""The stage: questions of all checkpoints, judge after judge, replies on disk as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reprokit import benchmarks
from reprokit.benchmarks.interface import Item, Question, Response
from reprokit.errors import UserError
from reprokit.evaluation.judges import sources
from reprokit.evaluation.judges.asking import Judge
from reprokit.evaluation.judges.replies import Replies, ReplyLog, judges_for, question_digest
from reprokit.evaluation.share import Share
from reprokit.recipe import evaluated_steps
from reprokit.recipe.judges import JUDGES, JudgeKind
from reprokit.recipe.sampling import settings
from reprokit.recipe.schema import Recipe
from reprokit.records.progress import ProgressBar
from reprokit.records.result import FINISHED, Cell
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import is_generated, read_items, read_samples


def judge(run: RunDirectory, recipe: Recipe, share: Share, progress: Path) -> None:
    """Answer this worker's share of the questions that have no reply yet; each judge is loaded once.

    All checkpoints count whose samples are there. What one judge cannot answer keeps no other from answering.

    Raises:
        UserError: a judge was not prepared or cannot answer; every reply that was given is on disk. Only worker 0
            raises; the others say it.
        NodeError: samples are damaged, and are to be drawn again first.
    """
    pending = {
        key: without_reply(run, recipe, key, share_of(questions, share))
        for key, questions in gather(run, recipe).items()
    }
    failures = []
    path = progress if share.rank == 0 else None
    with ProgressBar(total=sum(map(len, pending.values())), desc="judge", unit="question", path=path) as bar:
        for key, questions in pending.items():
            if not questions:
                continue
            try:
                _answer(run, recipe, key, questions, share.rank, bar)
            except UserError as error:
                failures.append(str(error))
    if failures and share.rank:  # an error here would end the job, and with it what others still answer
        print("\n".join(failures), flush=True)
    elif failures:
        raise UserError("\n".join(failures))


def gather(run: RunDirectory, recipe: Recipe) -> dict[str, dict[str, Question]]:
    """Judge -> digest -> question, over all benchmarks and checkpoints; judges in the order of their loading."""
    found: dict[str, dict[str, Question]] = {key: {} for key in sources.all_keys(recipe)}
    for name in recipe.evaluation.benchmarks:
        prompts = judges_for(run, recipe, name)
        if not prompts:
            continue
        items = {item.id: item for item in read_items(run, name, Item)}
        asked = settings(recipe.evaluation, name)
        for step in evaluated_steps(recipe):
            if is_generated(run, Cell(step, name), asked):
                for question in _questions(run, step, name, items, prompts):
                    found[question.judge][question_digest(question)] = question
    return found


def _questions(
    run: RunDirectory, step: int, name: str, items: Mapping[str, Item], prompts: Mapping[str, str]
) -> list[Question]:
    benchmark = benchmarks.get(name)
    questions: list[Question] = []
    for sample in read_samples(run, step, name, len(items)):
        response = Response(sample.text, sample.finish_reason == FINISHED)
        questions += benchmark.questions(items[sample.item], response, prompts).values()
    return questions


def share_of(questions: Mapping[str, Question], share: Share) -> dict[str, Question]:
    """Longest first, every `world_size`-th: taken of all questions, so that workers agree whoever began earlier."""
    order = sorted(questions, key=lambda digest: (-_length(questions[digest]), digest))
    return {digest: questions[digest] for digest in order[share.rank :: share.world_size]}


def _length(question: Question) -> int:
    return len(question.before) + len(question.body) + len(question.after)


def without_reply(run: RunDirectory, recipe: Recipe, key: str, questions: Mapping[str, Question]) -> list[Question]:
    """Questions that this judge has not answered yet, for whichever worker."""
    if not questions:
        return []
    known = Replies(run, recipe, key)
    return [question for digest, question in questions.items() if digest not in known]


def _answer(
    run: RunDirectory, recipe: Recipe, key: str, questions: Sequence[Question], rank: int, bar: ProgressBar
) -> None:
    source = sources.read(run, recipe, key)
    cut = 0
    with ReplyLog(run, key, source.digest, rank) as log, load(run, recipe, key) as loaded:
        for judgement in loaded.answer(questions):
            log.add(judgement)
            cut += judgement.cut
            bar.update()
    print(f"{key} ({source.name}): {len(questions)} questions answered, {cut} of them cut", flush=True)


def load(run: RunDirectory, recipe: Recipe, key: str) -> Judge:
    """The judge, ready to answer.

    Raises:
        UserError: its folder is gone or no longer what was prepared; as the judges' own.
    """
    from reprokit.evaluation.judges import completion, endpoint, reward

    source, judge = sources.read(run, recipe, key), JUDGES[key]
    if source.folder is None:
        return endpoint.EndpointJudge(key, sources.section_of(recipe, key), judge.max_tokens, _tokenizer(run))
    folder = Path(source.folder)
    sources.check_unchanged(key, source)
    if judge.kind is JudgeKind.reward:
        return reward.RewardJudge(folder)
    return completion.CompletionJudge(folder, judge.kind is JudgeKind.chat, judge.max_tokens)


def _tokenizer(run: RunDirectory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(run.tokenizer, local_files_only=True)
