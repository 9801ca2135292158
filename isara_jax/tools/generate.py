"""Completes the prompts of a JSONL file.

    python -m isara_jax.tools.generate --model=ANY --input=IN.jsonl --output=OUT.jsonl

A line of the input is {"prompt": TEXT}, which is continued as it is, or
{"question": TEXT}, which is written with --template and answered; a file holds one of
the two kinds. A line may have an "id", a text or an integer; the default is its line's
number. Other fields are ignored. A line of the output has the fields id, text, finish
("eos", "stop" or "length"), prompt_tokens, new_tokens and log_probability (of the new
tokens, in nats, before any logits processor), in the order of the input.

A sample is fixed by --seed and its index in the input; in float32 --max_slots changes
only the rounding of its log-probability. Completions are appended to OUT.jsonl.partial,
from which the same command resumes, and become OUT.jsonl when all are there.
OUT.jsonl.settings.json keeps the settings: a complete output is left alone, and one of
other settings is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from absl import flags

from isara_jax.cli import (
    Section,
    define_sections,
    result_values,
    sections_from_flags,
    start,
)
from isara_jax.engine import EngineConfig, SamplingParams
from isara_jax.errors import FieldError
from isara_jax.generation import Generator, SampleKind, generate_to_records
from isara_jax.models import Decoder
from isara_jax.prompts import (
    PlainTemplate,
    Prompt,
    PromptBuilder,
    Template,
    TemplateName,
    make_template,
)
from isara_jax.run import hash_bytes, hash_weights
from isara_jax.runtime import ModelSource, RuntimeConfig, StopSignal, log, make_mesh
from isara_jax.runtime.hardware import enable_compilation_cache
from isara_jax.tools.completions import Output, PromptRecord, read_prompts
from isara_jax.tools.text_model import TextModel, open_text_model


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Which prompts are completed, how they are written, and where the results go."""

    input: str = field(
        default="", metadata={"help": "JSONL of prompts or of questions"}
    )
    output: str = field(
        default="",
        metadata={"help": "JSONL of the completions", "operational": True},
    )
    template: TemplateName = field(
        default="paper",
        metadata={
            "help": "how a question is written: the paper's text; the same for a model "
            "trained with a space before answers; or the model's own chat format"
        },
    )
    stop: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "a text that ends a continuation and is cut off, besides those of "
            "a question's template; the flag may be given more than once"
        },
    )

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            if not getattr(self, name):
                raise FieldError(name, "", "must be given")
        if "" in self.stop:
            raise FieldError("stop", "", "must not be empty")


SECTIONS = {
    "source": Section(kind=ModelSource),
    "job": Section(kind=GenerateConfig),
    "decoding": Section(kind=SamplingParams, defaults={"max_new_tokens": 128}),
    "engine": Section(kind=EngineConfig, operational=("max_slots",)),
    "runtime": Section(kind=RuntimeConfig),
}


def work(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Completes every prompt that is not completed yet."""
    sections = sections_from_flags(SECTIONS, flag_values)
    source, job = sections["source"], sections["job"]
    runtime = sections["runtime"]
    prompts = read_prompts(Path(job.input))
    text_model = open_text_model(source.model, adapter=source.adapter)
    template = stopping_template(job, kind=prompts[0].kind, text_model=text_model)
    enable_compilation_cache(runtime.compilation_cache)
    mesh = make_mesh(data=runtime.mesh_data, model=runtime.mesh_model)
    output = Output(Path(job.output))
    output.open(
        {
            **result_values(SECTIONS, flag_values),
            "hash of the model": hash_weights(text_model.opened.path),
            **hash_of_adapter(text_model),
            "hash of the input": hash_bytes(Path(job.input).read_bytes()),
        }
    )
    if output.path.exists():
        log(f"{output.path}: is complete, nothing is left to do")
    else:
        with StopSignal() as signal:
            complete(
                prompts,
                output,
                model=partial(text_model.load, runtime=runtime, mesh=mesh),
                prompt_builder=text_model.prompt_builder(template),
                generator=text_model.generator(
                    template,
                    runtime=runtime,
                    slots=sections["engine"].slots,
                    mesh=mesh,
                    check=signal.check,
                ),
                sampling_params=sections["decoding"],
            )
    print(output.path)


def hash_of_adapter(text_model: TextModel) -> dict[str, str]:
    """Returns the adapter's hash, if there is an adapter."""
    if text_model.adapter is None:
        return {}
    return {"hash of the adapter": hash_weights(text_model.adapter)}


def complete(
    prompts: Sequence[PromptRecord],
    output: Output,
    *,
    model: Callable[[], Decoder],
    prompt_builder: PromptBuilder,
    generator: Generator,
    sampling_params: SamplingParams,
) -> None:
    """Generates the completions that the partial output lacks, and finishes it."""
    generate_to_records(
        output.partial,
        [
            build_prompt(prompt, sample_index=index, prompt_builder=prompt_builder)
            for index, prompt in enumerate(prompts)
        ],
        model=cache(model),
        generator=generator,
        sampling_params=sampling_params,
        round_index=0,
        kind=SampleKind.ANSWER,
        stage="completions",
        to_record=lambda completion: {
            "id": completion.id,
            "text": completion.text,
            "finish": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "new_tokens": len(completion.tokens),
            "log_probability": completion.log_probability,
        },
    )
    output.finish(prompts)


def build_prompt(
    record: PromptRecord, *, sample_index: int, prompt_builder: PromptBuilder
) -> Prompt:
    """Writes a line of the input as a prompt in token ids."""
    text = record.text
    if record.kind == "question":
        text = prompt_builder.template.answer_prompt(text.strip())
    return prompt_builder.zero_shot(text, id=str(record.id), sample_index=sample_index)


def stopping_template(
    job: GenerateConfig, *, kind: str, text_model: TextModel
) -> Template:
    """Returns the template of the input's kind, the user's stop strings added."""
    if kind == "prompt":
        return PlainTemplate(answer_lead="", stops=job.stop)
    template = make_template(job.template, render=text_model.tokenizer.render_chat)
    return replace(template, stops=(*template.stops, *job.stop))


def run() -> None:
    """Starts the command."""
    define_sections(SECTIONS)
    start(work, module="isara_jax.tools.generate", to_save_memory="--max_slots")


if __name__ == "__main__":
    run()
