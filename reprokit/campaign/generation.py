"""How long an engine takes for the responses to one checkpoint: a model of memory bandwidth. An estimate.

An engine of g GPUs draws T tokens over R responses after prompts of P tokens each. In every decoding step it reads the
matrices once, W bytes, and the cache, k bytes per token, of the S sequences in flight. With c the mean context while a
token is drawn (prompt and half of the response) and u bytes per second really read by one GPU:

in flight  S = the least of R, the sequences that vLLM runs at a time, and those that its cache holds, cache / (k c)
decoding   the larger of (T / S) W / (g u) and the operations of T tokens, 2 per parameter; and T c k / (g u) of cache
prefill    2 operations per parameter and prompt token
drain      (longest response) W / (g u): at the end the last sequences run almost alone, and only then are the next
           weights loaded. Some response always runs to the limit of tokens.

Requests are shared by the engines of an element as they go, so that each has an equal part.
Sliding windows are not known here: every layer counts as one that reads its whole cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from reprokit.campaign.engines import RESERVE, USABLE
from reprokit.campaign.memory import GIB, ModelSize
from reprokit.campaign.rates import Rates

LARGE, SEQUENCES_LARGE, SEQUENCES = 75.0, 1024, 256  # vLLM 0.32, engine/arg_utils.py, get_batch_defaults


@dataclass(frozen=True)
class Load:
    """What is asked of the engines of one checkpoint.

    `context_tokens`: sum over all tokens of responses of the tokens before them; `longest`: most tokens of a response.
    """

    responses: float = 0.0
    tokens: float = 0.0
    prompt_tokens: float = 0.0
    context_tokens: float = 0.0
    longest: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.responses + other.responses,
            self.tokens + other.tokens,
            self.prompt_tokens + other.prompt_tokens,
            self.context_tokens + other.context_tokens,
            max(self.longest, other.longest),
        )


def load_of(responses: float, tokens: float, prompt: float, longest: int) -> Load:
    """`responses` of `tokens` each, after prompts of `prompt` tokens each."""
    drawn = responses * tokens
    return Load(responses, drawn, responses * prompt, drawn * (prompt + tokens / 2), longest)


@dataclass(frozen=True)
class EngineSize:
    """A model on the GPUs of one engine: bytes of all weights, of those that a step reads, and of a token in cache."""

    gpus: int
    parameters: int
    weights: float
    read: float
    cached: float


def engine_size(model: ModelSize, gpus: int, element: int) -> EngineSize:
    """`element`: bytes of a weight. Without an architecture the cache counts as nothing."""
    shape = model.architecture
    if shape is None:
        return EngineSize(gpus, model.parameters, element * model.parameters, element * model.parameters, 0.0)
    read = element * (shape.layers * shape.layer_parameters + shape.head_parameters)
    cached = element * 2 * shape.layers * shape.key_value_heads * shape.head_dim
    return EngineSize(gpus, model.parameters, element * model.parameters, read, cached)


def seconds(load: Load, size: EngineSize, engines: int, rates: Rates) -> float:
    """Seconds that `engines` beside each other take for a load."""
    if load.tokens == 0:
        return 0.0
    weights, others = bytes_read(load, size, engines, rates)
    bandwidth, operations = size.gpus * rates.decoding, size.gpus * rates.prefill
    decoding = 2.0 * size.parameters * load.tokens / engines / operations
    prefill = 2.0 * size.parameters * load.prompt_tokens / engines / operations
    return max(weights / bandwidth, decoding) + others / bandwidth + prefill


def bytes_read(load: Load, size: EngineSize, engines: int, rates: Rates) -> tuple[float, float]:
    """Bytes that one of `engines` reads: weights while it is full; cache, and weights while it drains."""
    steps = load.tokens / engines / in_flight(load, size, engines, rates)
    return steps * size.read, load.context_tokens / engines * size.cached + load.longest * size.read


def in_flight(load: Load, size: EngineSize, engines: int, rates: Rates) -> float:
    """Sequences that one engine runs at a time, at least one."""
    limits = [load.responses / engines, float(sequences(rates))]
    cache = size.gpus * (USABLE * rates.memory_gb - RESERVE) * GIB - size.weights
    if size.cached:
        limits.append(cache / (size.cached * load.context_tokens / load.tokens))
    return max(1.0, min(limits))


def sequences(rates: Rates) -> int:
    """Most sequences that vLLM runs at a time by default."""
    large = rates.memory_gb >= LARGE and not rates.gpu.name.startswith("A100")
    return SEQUENCES_LARGE if large else SEQUENCES
