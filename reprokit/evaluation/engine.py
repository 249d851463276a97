"""vLLM behind the two things that an evaluation asks of it: responses as they finish, checkpoint after checkpoint."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reprokit.evaluation.parallel import ALONE, Followers, warm_up_stages
from reprokit.evaluation.requests import Request
from reprokit.records.result import Sample

logger = logging.getLogger(__name__)
CPU_CACHE_GIB = "2"
# Probes of the self-test: prompts of random tokens, and how many tokens are continued greedily.
PROBE_LENGTHS, PROBE_TOKENS = (3, 17, 40), 6
PROBE_TOLERANCE = 1e-6  # of log-probabilities, relative


def claim_device(local_rank: int, cores: int, gpus: int = 1) -> None:
    """Give this process its `gpus` GPUs of the node, from the one of its rank on, or its CPU cores.

    To be called before vLLM is imported.
    """
    own = range(local_rank, local_rank + gpus)
    granted = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, own)))  # empty: the job was given no GPU
    visible = granted.split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(visible[device % len(visible)] for device in own))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
    # vLLM's own binding counts cores from 0 in every process: engines beside each other would share one core.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ["OMP_NUM_THREADS"] = str(cores)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # One engine per process: in the same process it starts sooner and cannot outlive its job.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def for_device() -> dict[str, Any]:
    """What vLLM has to be told where there is no GPU."""
    import torch

    if torch.cuda.is_available():
        return {}
    # Its bf16 attention uses AMX where the CPU has it, but does not ask Linux for it: an illegal instruction.
    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()
    # Seeded requests crash vLLM on the CPU when a prompt is prefilled in pieces ("CPU Generator does not use offset");
    # compiling graphs takes longer there than it saves.
    return {"enforce_eager": True, "enable_chunked_prefill": False}


class Engine:
    """One vLLM engine, which is fed while it runs; `load` changes its weights.

    Responses end at the end-of-text token of the tokenizer and at those of the model's `generation_config.json`, as in
    the official code; nothing else of that file is taken. The token that ended a response is not in its text; other
    special tokens are, unless the sampling settings say otherwise.
    """

    def __init__(
        self,
        tokenizer: Path,
        dtype: str,
        max_model_length: int | None,
        longest_sequence: int | None = None,
        followers: Followers | None = None,
        requests_at_a_time: int | None = None,
    ) -> None:
        """
        Args:
            max_model_length: tokens of prompt and response; None: the context of the model, but no more than
                `longest_sequence`, for all of which the engine keeps room.
            followers: GPUs of this and other nodes that make the engine; None: one GPU.
            requests_at_a_time: None: as many as vLLM finds fit. 1: no response depends on what else is asked for.
        """
        self.options: dict[str, Any] = {
            "tokenizer": str(tokenizer),
            "dtype": dtype,
            "max_model_len": max_model_length,
        }
        if requests_at_a_time is not None:
            self.options["max_num_seqs"] = requests_at_a_time
        if requests_at_a_time == 1:
            self.options["enable_prefix_caching"] = False  # what was asked before would change how a prompt is read
        self.longest_sequence = longest_sequence
        self.followers = followers or Followers(ALONE)
        self.llm: Any = None
        self.weights: Path | None = None
        self.swaps_exactly: bool | None = None  # None: not tested yet
        self.seconds = 0.0  # in which it had something to do, starts and swaps left out
        self._swapped = False
        self._in_flight: dict[str, tuple[Request, float]] = {}
        self._numbers = itertools.count()

    def context(self, weights: Path) -> int:
        """Most tokens of prompt and response, by vLLM's own rule; needs no running engine."""
        from vllm import EngineArgs

        context = int(EngineArgs(model=str(weights), **self.options).create_model_config().max_model_len)
        if self.longest_sequence is not None and context > self.longest_sequence:
            self.options["max_model_len"] = context = self.longest_sequence
        return context

    @property
    def slots(self) -> int:
        """Sequences that run at a time at most."""
        return int(self.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs)

    @property
    def in_flight(self) -> int:
        """Requests that were added and have not finished."""
        return len(self._in_flight)

    def facts(self) -> dict[str, Any]:
        """What made the samples, for their provenance."""
        import vllm

        return {
            "name": "vllm",
            "version": vllm.__version__,
            "dtype": self.options["dtype"],
            "tensor_parallel": self.followers.place.tensor,
            "pipeline_parallel": self.followers.place.pipeline,
            "context": self.llm.llm_engine.vllm_config.model_config.max_model_len,
            "device": _device_name(),
            "weights": "swapped in place" if self._swapped else "loaded by a fresh engine",
            "swap_test": {None: "not made", True: "equal to a fresh engine", False: "differs"}[self.swaps_exactly],
        }

    def load(self, weights: Path) -> None:
        """Make `weights` (a Hugging Face folder) the model that answers; nothing may be in flight.

        Weights of the same architecture are swapped in place. The first swap is tested: a fresh engine must give
        the same log-probabilities. If it does not, every checkpoint gets a fresh engine.
        """
        assert not self._in_flight
        if self.weights == weights:
            return
        if not self._may_swap(weights):
            self._start(weights)
        elif self.swaps_exactly:
            self._swap(weights)
        else:
            self._test_swap(weights)

    def _may_swap(self, weights: Path) -> bool:
        if self.weights is None or self.swaps_exactly is False:
            return False
        same = _architecture(weights) == _architecture(self.weights)
        if not same:
            self.swaps_exactly = None
        return same

    def _test_swap(self, weights: Path) -> None:
        """Swap, and ask the same of a fresh engine, which then stays."""
        before = self._probe()
        try:
            self._swap(weights)
            swapped = self._probe()
        except Exception as error:  # whatever it is, the fresh engine is not touched by it
            logger.warning("swapping weights in place failed: %s", error)
            swapped = []
        self._start(weights)
        fresh = self._probe()
        if not swapped or not _close(swapped, fresh):
            self.swaps_exactly = False
            logger.warning("weights swapped in place do not answer as freshly loaded ones: every checkpoint is loaded")
        elif not _close(before, fresh):  # else it was no test: both checkpoints have the same weights
            self.swaps_exactly = True

    def _swap(self, weights: Path) -> None:
        # It warns of layers that have no weights; that all is right is for the test to say.
        logging.getLogger("vllm.model_executor.model_loader.reload").setLevel(logging.ERROR)
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights)})
        self.llm.collective_rpc(_refresh_output_head)
        self.llm.reset_prefix_cache()
        self.weights, self._swapped = weights, True

    def _start(self, weights: Path) -> None:
        import torch
        from vllm import LLM

        self.close()
        options = {"model": str(weights), "disable_log_stats": True, **for_device(), **self.options}
        self.llm = LLM(**self.followers.start(options))
        if self.followers.place.pipeline > 1 and not torch.cuda.is_available():
            warm_up_stages(self.llm)
        self.weights, self._swapped = weights, False

    def close(self) -> None:
        """End the engine and free its memory."""
        if self.llm is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        self.followers.stop()
        self.llm.llm_engine.engine_core.shutdown()
        self.llm, self.weights = None, None
        gc.collect()
        cleanup_dist_env_and_memory()

    def add(self, request: Request) -> None:
        """Hand over a request that has room for a response."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        asked = request.sampling
        parameters = SamplingParams(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
            max_tokens=request.room,
            seed=request.seed,
            skip_special_tokens=asked.skip_special_tokens,
            spaces_between_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        number = str(next(self._numbers))
        self.llm.llm_engine.add_request(number, tokens_input(request.prompt), parameters)
        self._in_flight[number] = (request, time.monotonic())

    def step(self) -> list[Sample]:
        """Let every sequence that runs have its next token; returns the responses that finished.

        Raises:
            RuntimeError: the engine gave a request up.
        """
        started = time.monotonic()
        outputs = self.llm.llm_engine.step()
        now = time.monotonic()
        self.seconds += now - started
        samples = []
        for output in outputs:
            if output.finished:
                request, added = self._in_flight.pop(output.request_id)
                samples.append(_sample(request, output.outputs[0], now - added))
        return samples

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        """Draw every request; the order of the result is that of the requests."""
        for request in requests:
            if request.room > 0:
                self.add(request)
        found = {(sample.benchmark, sample.item, sample.sample): sample for sample in self._drain()}
        return [found.get(request.key) or no_room(request) for request in requests]

    def _drain(self) -> Iterator[Sample]:
        while self._in_flight:
            yield from self.step()

    def _probe(self) -> list[float]:
        """Log-probabilities of fixed prompts and of what follows them greedily, and what follows them."""
        from vllm import SamplingParams

        model = self.llm.llm_engine.vllm_config.model_config
        vocabulary, most = model.get_vocab_size(), model.max_model_len - PROBE_TOKENS
        parameters = SamplingParams(temperature=0.0, max_tokens=PROBE_TOKENS, prompt_logprobs=0, logprobs=0)
        prompts = [
            {"prompt_token_ids": [(7 + 7919 * (length + place)) % vocabulary for place in range(min(length, most))]}
            for length in PROBE_LENGTHS
        ]
        found: list[float] = []
        for output in self.llm.generate(prompts, parameters, use_tqdm=False):
            response = output.outputs[0]
            for position in [*output.prompt_logprobs[1:], *response.logprobs]:
                found += [entry.logprob for entry in position.values()]
            found += map(float, response.token_ids)
        self.llm.reset_prefix_cache()
        return found


def no_room(request: Request) -> Sample:
    """The sample of a request whose prompt fills the context: no text."""
    return request.sampled("", 0, "no_room", 0.0)


def _sample(request: Request, response: Any, seconds: float) -> Sample:
    reason = str(response.finish_reason)
    if reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended {request.key} with {reason!r} instead of a response")
    return request.sampled(response.text, len(response.token_ids), reason, seconds)


def _close(some: Sequence[float], others: Sequence[float]) -> bool:
    return len(some) == len(others) and all(
        abs(one - other) <= PROBE_TOLERANCE * max(1.0, abs(other)) for one, other in zip(some, others, strict=True)
    )


def _refresh_output_head(worker: Any) -> None:
    """Renew what vLLM keeps of the output embeddings besides their weights; runs in the engine's workers.

    On the CPU it computes with a packed copy, which a reload renews only for embeddings that are not tied.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod

    for module in worker.get_model().modules():
        if isinstance(module, ParallelLMHead) and isinstance(module.quant_method, UnquantizedEmbeddingMethod):
            module.quant_method.process_weights_after_loading(module)


def _architecture(weights: Path) -> dict[str, Any]:
    """The model configuration without what does not change the computation."""
    config = json.loads((weights / "config.json").read_text())
    return {key: value for key, value in config.items() if key not in {"_name_or_path", "transformers_version"}}


def _device_name() -> str:
    """Name of the GPU, or of the processor where there is none."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
