"""transformers' `generate` on torch: padded batches in the order of arrival.

Every text of a batch is written to the longest of its rows, and no end-of-text token
before: what a row writes beyond its own length is part of what padding costs.
"""

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.generation.workloads import Runner, Timing, Workload


@dataclass
class Clock(transformers.generation.BaseStreamer):
    """Clocks one `generate`, which hands over its prompts, then every step's tokens.

    The first step's tokens come out of the prompts' own pass.
    """

    times: list[float] = field(default_factory=list)

    def put(self, value: torch.Tensor) -> None:
        """Notes the time; the tokens are on the host, so they are computed."""
        del value
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Does nothing: the last tokens were put before."""

    @property
    def prefill_seconds(self) -> float:
        """From the prompts to the first tokens."""
        return self.times[1] - self.times[0]

    @property
    def decode_seconds(self) -> float:
        """From the first tokens to the last."""
        return self.times[-1] - self.times[1]


class TransformersPeer:
    """A model of transformers, where it is."""

    def __init__(self, model: transformers.PreTrainedModel):
        self.model = model.eval()

    def runners(self, workload: Workload) -> dict[str, Runner]:
        """Plainly; prompts that share a beginning also with it cached by hand."""
        runners: dict[str, Runner] = {"transformers": self.run}
        if workload.shared:
            runners["transformers with the prefix by hand"] = self.run_hand_made
        return runners

    def run(self, workload: Workload) -> Timing:
        """Does a workload in batches of its rows."""
        torch.manual_seed(0)
        begun, clocks, tokens = time.perf_counter(), [], 0
        for begin in range(0, len(workload.prompts), workload.rows):
            part = slice(begin, begin + workload.rows)
            prompts, new = workload.prompts[part], max(1, *workload.new_tokens[part])
            clocks.append(self._generate(prompts, new=new, workload=workload))
            tokens += len(prompts) * (new - 1)
        return Timing(
            seconds=time.perf_counter() - begun,
            prefill_seconds=sum(clock.prefill_seconds for clock in clocks),
            decode_seconds=sum(clock.decode_seconds for clock in clocks),
            decoded_tokens=tokens,
        )

    def run_hand_made(self, workload: Workload) -> Timing:
        """Does it with the shared prefix run once and its cache repeated."""
        begun = time.perf_counter()
        tokens = torch.tensor(workload.prompts, device=self.model.device)
        with torch.inference_mode():
            cache = transformers.DynamicCache(config=self.model.config)
            given = {self._cache_name: cache}
            self.model(tokens[:1, : workload.shared], use_cache=True, **given)
            cache.batch_repeat_interleave(len(workload.prompts))
            self.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                **given,
                **generate_arguments(workload, new=max(workload.new_tokens)),
            )
        return Timing(seconds=time.perf_counter() - begun)

    @property
    def _cache_name(self) -> str:
        """The argument that takes a cache, which transformers 5.24 has renamed."""
        known = inspect.signature(self.model.forward).parameters
        return "cache" if "cache" in known else "past_key_values"

    def _generate(
        self, prompts: Sequence[Sequence[int]], *, new: int, workload: Workload
    ) -> Clock:
        longest = max(map(len, prompts))
        tokens = torch.zeros((len(prompts), longest), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        clock = Clock()
        with torch.inference_mode():
            self.model.generate(
                tokens.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                streamer=clock,
                **generate_arguments(workload, new=new),
            )
        return clock


def generate_arguments(workload: Workload, *, new: int) -> dict[str, Any]:
    """Returns the workload's rules in transformers' words, for exactly `new` tokens.

    Raises:
      ValueError: the rules are of beams, whose texts cannot be held to a length.
    """
    length = {"min_new_tokens": new, "max_new_tokens": new, "pad_token_id": 0}
    if workload.rules is None:
        return {"do_sample": False, **length}
    sampling_params, stop_criteria = (
        workload.rules.sampling_params,
        workload.rules.stop_criteria,
    )
    if sampling_params.beams > 1:
        raise ValueError(
            f"beams={sampling_params.beams}: drafting is compared without beams"
        )
    arguments = {
        **length,
        "repetition_penalty": sampling_params.repetition_penalty,
        "no_repeat_ngram_size": sampling_params.no_repeat_ngram,
        "eos_token_id": list(stop_criteria.eos),
    }
    if sampling_params.length_decay_factor != 1:
        arguments["exponential_decay_length_penalty"] = (
            sampling_params.length_decay_start,
            sampling_params.length_decay_factor,
        )
    if sampling_params.temperature == 0:
        return {"do_sample": False, **arguments}
    return {
        "do_sample": True,
        "temperature": sampling_params.temperature,
        "top_k": sampling_params.top_k,
        "top_p": sampling_params.top_p,
        "min_p": sampling_params.min_p or None,
        **arguments,
    }


def load(source: Path) -> TransformersPeer:
    """Loads the model of a folder or a GGUF file in fp32."""
    named = {"gguf_file": source.name} if source.suffix == ".gguf" else {}
    folder = source.parent if named else source
    return TransformersPeer(
        transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, **named
        )
    )


def random_weights(shape: Any, *, dtype: str) -> TransformersPeer:
    """Makes a LLaMA of the package's `LlamaConfig` with random weights, on the GPU.

    Where torch sees none it is on the CPU.
    """
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.norm_epsilon,
        tie_word_embeddings=shape.tied_head,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype)
        )
    return TransformersPeer(model)
