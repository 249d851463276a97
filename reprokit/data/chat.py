"""Prompts by chat template, and what shows that a template is the wrong one."""

from __future__ import annotations

import os
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from reprokit.data.rows import Row
from reprokit.errors import UserError

_PROBE = "reprokit-probe-{}"  # text that no template has in it


class TemplateFault(ValueError):
    """A row that the chat template refuses or renders without its text; the message says which, but not the row."""


def render(message: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, generation_prompt: bool = True) -> str:
    """Text of `message` by the chat template, up to where the response begins.

    Source: official code: generation prompt, no tools, no further arguments.

    Raises:
        TemplateFault: the template refuses the message.
    """
    try:
        text: Any = tokenizer.apply_chat_template(message, add_generation_prompt=generation_prompt, tokenize=False)
    except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
        raise TemplateFault(f"the chat template refuses it: {error}") from error
    return str(text)


def render_checked(row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """As `render`, for a row whose turns must all be in the prompt.

    Of an assistant turn only what follows its thinking counts: templates of reasoning models leave that out.

    Raises:
        TemplateFault: the template refuses the row, or leaves out the text of a turn.
    """
    text = render(row.message, tokenizer)
    for position, turn in enumerate(row.message, start=1):
        said = turn["content"].rpartition("</think>")[2] if turn["role"] == "assistant" else turn["content"]
        if said.strip() not in text:
            raise TemplateFault(
                f"the chat template leaves out the text of turn {position} ({turn['role']}); "
                "name one that fits with model.chat_template=FILE"
            )
    return text


def check_generation_prompt(row: Row, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError if the template does not tell a prompt that is to be answered from one that is not."""
    if render(row.message, tokenizer) == render(row.message, tokenizer, generation_prompt=False):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} ignores add_generation_prompt: nothing "
            "tells the model that its response begins. End the template with\n"
            "  {% if add_generation_prompt %}...{% endif %}, or name another one with model.chat_template=FILE"
        )


def preamble(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template puts in front of a conversation that has no system turn, BOS apart; empty if nothing.

    The text before the first user turn is compared with that before a later one: what both end with opens a user
    turn, the rest is the preamble.
    """
    said = [_PROBE.format(name) for name in ("first", "answer", "second")]
    roles = ("user", "assistant", "user")
    try:
        text = render([{"role": role, "content": word} for role, word in zip(roles, said, strict=True)], tokenizer)
    except TemplateFault:
        return ""
    before_first = text.partition(said[0])[0]
    before_second = text.partition(said[1])[2].partition(said[2])[0]
    opening = os.path.commonprefix([before_first[::-1], before_second[::-1]])
    return before_first[: len(before_first) - len(opening)].removeprefix(str(tokenizer.bos_token or "")).strip()
