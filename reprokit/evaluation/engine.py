"""vLLM behind the one thing that an evaluation asks of it: responses for prompts, checkpoint after checkpoint."""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprokit.recipe.sampling import Sampling
from reprokit.records.progress import ProgressBar
from reprokit.records.result import Sample

CPU_CACHE_GIB = "2"


@dataclass(frozen=True)
class Request:
    """One response to draw: prompt token ids of an item of a benchmark, and which of its samples this is."""

    benchmark: str
    item: str
    sample: int
    prompt: list[int]
    sampling: Sampling

    @property
    def seed(self) -> int:
        """In 0 .. 2**31-1; the same for the same sample of the same item, whatever the sharing among engines."""
        name = f"{self.sampling.seed}/{self.benchmark}/{self.item}/{self.sample}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def claim_device(local_rank: int, cores: int) -> None:
    """Give this process its one GPU of the node, or its CPU cores; before vLLM is imported."""
    granted = os.environ.get("CUDA_VISIBLE_DEVICES", str(local_rank))  # empty: the job was given no GPU
    visible = granted.split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[local_rank % len(visible)]
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
    # vLLM's own binding counts cores from 0 in every process: engines beside each other would share one core.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ["OMP_NUM_THREADS"] = str(cores)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # One engine per process: in the same process it starts sooner and cannot outlive its job.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def tied_embeddings(weights: Path) -> bool:
    """Whether input and output embeddings are one tensor (transformers' default is yes)."""
    return bool(json.loads((weights / "config.json").read_text()).get("tie_word_embeddings", True))


class Engine:
    """One vLLM engine; `load` changes its weights."""

    def __init__(self, tokenizer: Path, dtype: str, max_model_length: int | None) -> None:
        self.options: dict[str, Any] = {"tokenizer": str(tokenizer), "dtype": dtype, "max_model_len": max_model_length}
        self.llm: Any = None
        self.weights: Path | None = None

    def load(self, weights: Path) -> None:
        """Make `weights` (a Hugging Face folder) the model that answers.

        Weights are swapped in place where that is exact; with tied embeddings it is not, and a fresh engine starts.
        """
        if self.weights == weights:
            return
        if self.weights is not None and self._swappable(weights):
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights)})
            self.llm.reset_prefix_cache()
        else:
            self._start(weights)
        self.weights = weights

    def _swappable(self, weights: Path) -> bool:
        assert self.weights is not None
        if tied_embeddings(weights) or tied_embeddings(self.weights):
            return False
        return _architecture(weights) == _architecture(self.weights)

    def _start(self, weights: Path) -> None:
        import torch
        from vllm import LLM

        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            gc.collect()
        # Seeded requests crash vLLM on the CPU when a prompt is prefilled in pieces ("CPU Generator does not use
        # offset"); compiling graphs takes longer there than it saves.
        for_device: dict[str, Any] = (
            {}
            if torch.cuda.is_available()
            else {
                "enforce_eager": True,
                "enable_chunked_prefill": False,
            }
        )
        self.llm = LLM(model=str(weights), disable_log_stats=True, **for_device, **self.options)

    def generate(self, requests: Sequence[Request], description: str, progress: Path | None) -> list[Sample]:
        """Draw every request; the order of the result is that of the requests."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                temperature=request.sampling.temperature,
                top_p=request.sampling.top_p,
                max_tokens=request.sampling.max_tokens,
                seed=request.seed,
            )
            for request in requests
        ]
        bar = functools.partial(_bar, path=progress, description=description)
        outputs = self.llm.generate(
            [{"prompt_token_ids": request.prompt} for request in requests], parameters, use_tqdm=bar
        )
        return [_sample(request, output) for request, output in zip(requests, outputs, strict=True)]


def _bar(*arguments: Any, path: Path | None, description: str, **options: Any) -> ProgressBar:
    """vLLM names its bars after its own stages and formats their postfix for long lines."""
    return ProgressBar(*arguments, path=path, **{**options, "desc": description})


def _sample(request: Request, output: Any) -> Sample:
    response = output.outputs[0]
    return Sample(
        item=request.item,
        sample=request.sample,
        seed=request.seed,
        text=response.text,
        prompt_tokens=len(request.prompt),
        response_tokens=len(response.token_ids),
        finish_reason=str(response.finish_reason),
    )


def _architecture(weights: Path) -> dict[str, Any]:
    """The model configuration without what does not change the computation."""
    config = json.loads((weights / "config.json").read_text())
    return {key: value for key, value in config.items() if key not in {"_name_or_path", "transformers_version"}}
