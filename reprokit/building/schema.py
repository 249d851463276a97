"""What a data set is made of: one dataclass per way of making it. Every key of a data-set recipe is a field here.

Sources are files on the Hugging Face Hub or local ones. Values that the paper does not give are our choice; comments
and the recipes in `recipes/datasets/` say which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Optional

from omegaconf import MISSING

from reprokit.recipe.schema import BenchmarkSection, ModelSection


class Made(Enum):
    """How the rows come about.

    teacher: questions are put to a model, and correct responses kept.
    answers: the questions of another data set, answered by others.
    cut: the rows of another data set without their thinking.
    """

    teacher = "teacher"
    answers = "answers"
    cut = "cut"


class QuestionFormat(Enum):
    """Where questions come from.

    openr1_math: columns `problem` and `answer`, as OpenR1-Math-220k has them. countdown: puzzles, made here.
    """

    openr1_math = "openr1_math"
    countdown = "countdown"


class AnswerFormat(Enum):
    """Columns of the answers of others.

    openr1_math: `problem`, `generations`. luffy: `prompt` (turns), `target` (one turn). numina_math: `problem`,
    `solution`.
    """

    openr1_math = "openr1_math"
    luffy = "luffy"
    numina_math = "numina_math"


@dataclass
class FilesSection:
    """Files with rows: at most one of `path`, `hub_id`."""

    path: Optional[str] = None  # .parquet or .jsonl file, or a folder of such files
    hub_id: Optional[str] = None  # Hugging Face Hub data set id
    revision: Optional[str] = None  # commit of hub_id; default: that of the day, which is recorded
    files: list[str] = field(default_factory=lambda: ["*.parquet", "data/*.parquet"])  # patterns of names on the hub


@dataclass
class QuestionsSection(FilesSection):
    """The questions that the teacher is asked; `path` or `hub_id` unless the format is countdown."""

    format: QuestionFormat = QuestionFormat.openr1_math
    count: Optional[int] = None  # of questions, drawn at random; default: all; required with countdown
    seed: int = 0  # of the draw, and of the puzzles
    among: FilesSection = field(default_factory=FilesSection)  # only questions of this file (columns of LUFFY)


@dataclass
class SamplingSection:
    """How the teacher responds; defaults are the paper's (Section 2 of its data construction). min-p is 0."""

    samples: int = 32  # per question
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    max_tokens: int = 16384  # of the response
    seed: int = 1234


@dataclass
class BaseSection(FilesSection):
    """The data set that rows or questions are taken from: exactly one of `dataset`, `path`, `hub_id`."""

    dataset: Optional[str] = None  # name of one that was built in this folder


@dataclass
class AnswersSection(FilesSection):
    """Answers of others to the questions."""

    format: AnswerFormat = MISSING
    verify: bool = False  # keep only those whose final answer is right


@dataclass
class TeacherRecipe:
    """A data set of a teacher's responses."""

    dataset: str = MISSING  # its name: of the folder and of the file
    made: Made = Made.teacher
    rows: int = 20480
    seed: int = 0  # of the choice of rows, their order, and one response to each question
    questions: QuestionsSection = field(default_factory=QuestionsSection)
    model: ModelSection = field(default_factory=ModelSection)  # the teacher
    sampling: SamplingSection = field(default_factory=SamplingSection)
    shard_size: int = 500  # questions of one element of the Slurm array
    overlap: dict[str, BenchmarkSection] = field(default_factory=dict)  # evaluation sets to compare questions with


@dataclass
class AnswersRecipe:
    """A data set of answers of others to the questions of another data set, in its order."""

    dataset: str = MISSING
    made: Made = Made.answers
    rows: Optional[int] = None  # the first so many; default: all that have an answer
    seed: int = 0  # of the choice among several answers
    base: BaseSection = field(default_factory=BaseSection)
    answers: AnswersSection = field(default_factory=AnswersSection)
    tokenizer: Optional[str] = None  # folder or hub id, to count lengths; default: they are counted in words
    overlap: dict[str, BenchmarkSection] = field(default_factory=dict)


@dataclass
class CutRecipe:
    """A data set of the rows of another one, without their thinking."""

    dataset: str = MISSING
    made: Made = Made.cut
    rows: Optional[int] = None
    base: BaseSection = field(default_factory=BaseSection)
    tokenizer: Optional[str] = None
    overlap: dict[str, BenchmarkSection] = field(default_factory=dict)


DatasetRecipe = TeacherRecipe | AnswersRecipe | CutRecipe
SCHEMAS: dict[str, type[DatasetRecipe]] = {"teacher": TeacherRecipe, "answers": AnswersRecipe, "cut": CutRecipe}
