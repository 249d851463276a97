"""How many GPUs one engine of the evaluation needs, told before the queue, without torch. An estimate.

GiB of one GPU, for tensor parallel size t (GPUs of one node) and pipeline parallel size p (nodes), with b bytes per
element (bf16 2, fp32 4):

weights   b x (ceil(layers / p) x parameters of a layer + embeddings, and output head where both are on one stage) / t
cache     b x 2 x ceil(layers / p) x max(1, key-value heads / t) x head size, for every token of one longest sequence.
          Sliding windows are not known here: every layer counts as one that keeps everything.
reserve   RESERVE: activations, logits of the sampler, CUDA graphs, NCCL; part of what vLLM may take
limit     USABLE of the GPU's memory, a little less than vLLM takes by default (gpu_memory_utilization 0.92)

Sizes that vLLM takes (0.32: config/model.py, model_executor/layers): t divides heads, intermediate size and the padded
vocabulary, and divides the key-value heads or is a multiple of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from reprokit.campaign.memory import ELEMENT, GIB, ModelSize, memory_here, model_size
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.errors import UserError
from reprokit.recipe.architecture import Architecture
from reprokit.recipe.judges import JUDGES, JudgeKind
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import JudgeSection, Precision, Recipe

USABLE = 0.9
RESERVE = 6.0  # GiB
PROMPT_TOKENS = 8192  # of the longest prompt that is planned for, where a benchmark limits only the response
VOCABULARY_STEP = 64  # that vLLM pads the vocabulary to
MOST_NODES = 64  # that a remedy may ask for


def gpus_per_engine(recipe: Recipe, profile: ClusterProfile) -> int:
    """The smallest number of GPUs that holds the model and one longest sequence.

    It is a part of a node of `profile.evaluate`, or some whole nodes; 1 where there are no GPUs or the size of the
    model is not known.

    Raises:
        UserError: the GPUs of `profile.evaluate` cannot hold it; says how many could. Without GPUs: its memory cannot.
    """
    model = model_size(recipe.model)
    if model is None:
        return 1
    if profile.gpu_memory_gb is None:
        _check_memory(recipe, profile, model)
        return 1
    tokens, element = longest_sequence(recipe), ELEMENT[recipe.training.precision]
    for tensor, pipeline in _sizes(model, profile.evaluate):
        if gpu_gib(model, tensor, pipeline, tokens, element) <= USABLE * profile.gpu_memory_gb:
            return tensor * pipeline
    raise UserError("\n".join(_refusal(recipe, profile, model, tokens, element)))


def _check_memory(recipe: Recipe, profile: ClusterProfile, model: ModelSize) -> None:
    """Raises UserError when the memory of a node cannot hold the weights of one engine per task."""
    there, engines = profile.evaluate, profile.evaluate.tasks_per_node
    local = profile.scheduler is Scheduler.local
    memory = there.memory_gb or (memory_here() if local else None)
    weights = ELEMENT[recipe.training.precision] * model.parameters / GIB
    if memory is not None and engines * weights > USABLE * memory:
        raise UserError(
            f"recipe {recipe.name}: {engines} engines without a GPU need {weights:,.0f} GiB each for the weights of "
            f"{model.parameters / 1e9:.3g} billion parameters, and there are {memory:,.0f} GiB of memory. What helps: "
            "a cluster with GPUs (cluster=NAME), a smaller model, or a smaller evaluate.tasks_per_node"
        )


def check_judges(recipe: Recipe, profile: ClusterProfile) -> None:
    """Raises UserError when a judge that is the default model does not fit one GPU: a judge is never shared out."""
    if profile.gpu_memory_gb is None:
        return
    usable = USABLE * profile.gpu_memory_gb - RESERVE
    for key, judge in JUDGES.items():
        own = recipe.evaluation.judges.get(key) or JudgeSection()
        named = own.path or own.hub_id or own.endpoint or own.config
        asked = judge.benchmark in recipe.evaluation.benchmarks and not judge.optional
        needed = ELEMENT[Precision.bf16] * judge.parameters / GIB
        if asked and not named and needed > usable:
            other = f", or evaluation.judges.{key}.endpoint and .model" if judge.kind is JudgeKind.chat else ""
            raise UserError(
                f"the judge {key} of {judge.benchmark}, {judge.hub_id}, needs {needed:.0f} GiB of one GPU; of "
                f"{profile.gpu_memory_gb:g} GB {usable:.0f} can be used. Name a smaller model with "
                f"evaluation.judges.{key}.hub_id{other}, or leave the benchmark out: "
                f"evaluation.benchmarks.{judge.benchmark}=false"
            )


def longest_sequence(recipe: Recipe) -> int:
    """Most tokens of prompt and response that an engine is asked for: its `max_model_len`.

    It is less than the context of many models (InternLM2.5: 262144), for the whole of which vLLM would want a cache.
    """
    evaluation, model = recipe.evaluation, model_size(recipe.model)
    asked = [sampling(evaluation, name) for name in evaluation.benchmarks]
    longest = max(own.context or own.max_tokens + PROMPT_TOKENS for own in asked)
    limits = [evaluation.max_model_length, model.architecture.context if model and model.architecture else None]
    return min([longest, *(limit for limit in limits if limit is not None)])


def gpu_gib(model: ModelSize, tensor: int, pipeline: int, tokens: int, element: int) -> float:
    """GiB on every GPU of an engine, as at the top of this module; without the cache where the sizes are not known."""
    shape = model.architecture
    if shape is None:
        return RESERVE + element * model.parameters / (tensor * pipeline) / GIB
    layers = math.ceil(shape.layers / pipeline)
    ends = 2 if pipeline == 1 and not shape.tied else 1
    weights = element * (layers * shape.layer_parameters + ends * shape.head_parameters) / tensor
    cache = element * 2 * layers * max(1, shape.key_value_heads // tensor) * shape.head_dim * tokens
    return RESERVE + (weights + cache) / GIB


def _sizes(model: ModelSize, resources: Resources) -> Iterator[tuple[int, int]]:
    """Tensor and pipeline sizes that the GPUs can be shared into, fewest GPUs first."""
    node = resources.gpus_per_node
    for tensor in range(1, node + 1):
        if node % tensor == 0 and _splits(model.architecture, tensor):
            yield tensor, 1
    if _splits(model.architecture, node):
        for pipeline in range(2, resources.nodes + 1):
            if resources.nodes % pipeline == 0 and (
                model.architecture is None or pipeline <= model.architecture.layers
            ):
                yield node, pipeline


def _splits(shape: Architecture | None, tensor: int) -> bool:
    """Whether vLLM can share the matrices among `tensor` GPUs."""
    if shape is None:
        return tensor & (tensor - 1) == 0  # a power of two goes with nearly every model
    vocabulary = math.ceil(shape.vocabulary / VOCABULARY_STEP) * VOCABULARY_STEP
    whole = all(size % tensor == 0 for size in (shape.heads, shape.intermediate_size, vocabulary))
    return whole and (shape.key_value_heads % tensor == 0 or tensor % shape.key_value_heads == 0)


def _refusal(recipe: Recipe, profile: ClusterProfile, model: ModelSize, tokens: int, element: int) -> Iterator[str]:
    there, memory = profile.evaluate, profile.gpu_memory_gb
    assert memory is not None
    node = there.gpus_per_node
    weights = element * model.parameters / GIB
    usable = USABLE * memory - RESERVE
    yield (
        f"recipe {recipe.name}: no engine that evaluate of the cluster profile has GPUs for can hold the model, as far "
        "as can be estimated before it runs."
    )
    yield (
        f"  It needs: {weights:,.1f} GiB for {model.parameters / 1e9:.3g} billion parameters, and a cache for one "
        f"sequence of {tokens:,} tokens"
    )
    yield (
        f"  There is: {there.nodes} x {node} GPUs of {memory:g} GB; {USABLE:.0%} of each can be used, less "
        f"{RESERVE:g} GiB to work in: {max(0.0, usable):,.1f} GiB"
    )
    if not _splits(model.architecture, node):
        fitting = [str(size) for size in range(1, 17) if _splits(model.architecture, size)]
        yield f"  The model can be shared among {', '.join(fitting)} GPUs of a node, not among {node}."
    yield "  What helps: GPUs with more memory" + "".join(_remedies(profile, model, tokens, element))


def _remedies(profile: ClusterProfile, model: ModelSize, tokens: int, element: int) -> Iterator[str]:
    there, memory = profile.evaluate, profile.gpu_memory_gb
    assert memory is not None
    shape, node = model.architecture, there.gpus_per_node
    limit = USABLE * memory
    if profile.scheduler is not Scheduler.local and _splits(shape, node):
        for nodes in range(2, min(MOST_NODES, shape.layers if shape else MOST_NODES) + 1):
            if gpu_gib(model, node, nodes, tokens, element) <= limit:
                yield f"; evaluate.nodes: {nodes} or a multiple, for engines over {nodes} nodes"
                break
    for gpus in range(node + 1, 17):
        if _splits(shape, gpus) and gpu_gib(model, gpus, 1, tokens, element) <= limit:
            yield f"; nodes with {gpus} GPUs (evaluate.tasks_per_node and gpus_per_node)"
            break
