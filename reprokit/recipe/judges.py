"""The judge models that benchmarks ask, as recipes name them. Sources: official code (protocol of the benchmarks)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class JudgeKind(Enum):
    """What a judge does with a question."""

    reward = "reward"  # a sequence classifier gives a conversation one number
    completion = "completion"  # a language model continues a text
    chat = "chat"  # an instruction-tuned model answers a user turn


@dataclass(frozen=True)
class Judge:
    """A judge and the model that it is by default, with its parameters; `max_tokens` of its reply, drawn greedily."""

    kind: JudgeKind
    benchmark: str
    hub_id: str
    parameters: float
    max_tokens: int = 0
    optional: bool = False  # asked only where the recipe lists it


JUDGES = {
    "RB2": Judge(JudgeKind.reward, "alpaca_eval", "allenai/Llama-3.1-8B-Instruct-RM-RB2", 8.03e9),
    "Sky": Judge(JudgeKind.reward, "alpaca_eval", "Skywork/Skywork-Reward-V2-Llama-3.1-8B", 8.03e9, optional=True),
    "Mis": Judge(JudgeKind.reward, "alpaca_eval", "weqweasdas/RM-Mistral-7B", 7.24e9, optional=True),
    "truth": Judge(
        JudgeKind.completion, "truthfulqa", "allenai/truthfulqa-truth-judge-llama2-7B", 6.74e9, max_tokens=16
    ),
    "info": Judge(JudgeKind.completion, "truthfulqa", "allenai/truthfulqa-info-judge-llama2-7B", 6.74e9, max_tokens=16),
    # The paper asked gpt-4.1; a local model is our choice where no endpoint is given.
    "harm": Judge(JudgeKind.chat, "hex_phi", "Qwen/Qwen2.5-32B-Instruct", 32.8e9, max_tokens=4096),
}


def judges_of(benchmark: str) -> tuple[str, ...]:
    """Keys of the judges that a benchmark asks unless the recipe says otherwise."""
    return tuple(key for key, judge in JUDGES.items() if judge.benchmark == benchmark and not judge.optional)
