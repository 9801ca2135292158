"""Talks to a model on the terminal, or to two side by side, before and after alignment.

    python -m isara_jax.tools.chat --model=ANY
    python -m isara_jax.tools.chat --model=BEFORE --other=runs/NAME/model
    python -m isara_jax.tools.chat --model=BASE --adapter=runs/NAME/model/adapter

Each line is a question. A model sees its own earlier answers, as many of the latest
turns as fit its context. /reset forgets the conversation; /quit, Ctrl-D and Ctrl-C end
it. The answers of two models stand side by side where the terminal is wide enough, and
one below the other elsewhere. Questions may also come from a pipe; then only answers
are printed.
"""

import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from absl import flags

from isara_jax.cli import (
    Section,
    define_sections,
    sections_from_flags,
    start,
    user_sentence,
)
from isara_jax.engine import MIN_ROWS, SamplingParams
from isara_jax.errors import FieldError, InputError
from isara_jax.prompts import Template, TemplateName, make_template
from isara_jax.runtime import Mesh, ModelSource, RuntimeConfig, Tokenizer, make_mesh
from isara_jax.runtime.hardware import enable_compilation_cache
from isara_jax.tools.conversation import ChatModel, Conversation
from isara_jax.tools.terminal import has_room_for_columns, in_columns, printable
from isara_jax.tools.text_model import TextModel, open_text_model


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """The second model, and how the conversations are written."""

    other: str = field(
        default="",
        metadata={"help": "a second model, which gets the same questions; empty: none"},
    )
    other_adapter: str = field(
        default="", metadata={"help": "the same as `adapter`, for `other`"}
    )
    template: Literal["auto", "paper", "paper_spaced", "chat"] = field(
        default="auto",
        metadata={
            "help": "how the conversation is written; auto: the model's own chat "
            "format where its tokenizer has one, paper_spaced elsewhere"
        },
    )

    def __post_init__(self) -> None:
        if self.other_adapter and not self.other:
            raise FieldError("other_adapter", self.other_adapter, "needs `other`")


SECTIONS = {
    "source": Section(kind=ModelSource),
    "chat": Section(kind=ChatConfig),
    "decoding": Section(
        kind=SamplingParams, defaults={"max_new_tokens": 256, "temperature": 0.7}
    ),
    "runtime": Section(kind=RuntimeConfig),
}
RESET, QUIT = "/reset", "/quit"


def work(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Loads the models and answers until there are no more questions."""
    sections = sections_from_flags(SECTIONS, flag_values)
    source, chat = sections["source"], sections["chat"]
    runtime = sections["runtime"]
    sources = ((source.model, source.adapter), (chat.other, chat.other_adapter))
    text_models = [
        open_text_model(name, adapter=adapter) for name, adapter in sources if name
    ]
    names = [text_model.name for text_model in text_models]
    templates = [
        choose_template(chat.template, text_model.tokenizer)
        for text_model in text_models
    ]
    enable_compilation_cache(runtime.compilation_cache)
    mesh = make_mesh(data=runtime.mesh_data, model=runtime.mesh_model)
    chat_models = [
        load_chat_model(
            text_model,
            template,
            runtime=runtime,
            sampling_params=sections["decoding"],
            mesh=mesh,
        )
        for text_model, template in zip(text_models, templates, strict=True)
    ]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        notify(f"{printable(' and '.join(names))}; {RESET} forgets, {QUIT} ends")
    width = shutil.get_terminal_size().columns if interactive else None
    with suppress(KeyboardInterrupt):
        lines = terminal_lines() if interactive else pipe_lines()
        for answers in answers_to(lines, Conversation(chat_models)):
            print(layout(names, answers, width=width), flush=True)


def choose_template(
    name: TemplateName | Literal["auto"], tokenizer: Tokenizer
) -> Template:
    """Returns the named template, or the one that suits the tokenizer.

    Raises:
      InputError: `chat` with a tokenizer that has no usable chat format.
    """
    if name == "auto":
        name = "chat" if tokenizer.hugging_face.chat_template else "paper_spaced"
    return make_template(name, render=tokenizer.render_chat)


def load_chat_model(
    text_model: TextModel,
    template: Template,
    *,
    runtime: RuntimeConfig,
    sampling_params: SamplingParams,
    mesh: Mesh,
) -> ChatModel:
    """Loads a model's weights, to answer with them."""
    return ChatModel(
        name=text_model.name,
        model=text_model.load(runtime=runtime, mesh=mesh),
        prompt_builder=text_model.prompt_builder(template),
        generator=text_model.generator(
            template, runtime=runtime, slots=MIN_ROWS, mesh=mesh, check=lambda: None
        ),
        sampling_params=sampling_params,
    )


def answers_to(lines: Iterable[str], conversation: Conversation) -> Iterator[list[str]]:
    """Yields every model's answer to each line that is a question."""
    for line in lines:
        # A terminal that is not UTF-8 gives halves of surrogate pairs.
        question = line.encode("utf-8", errors="replace").decode("utf-8").strip()
        if question == QUIT:
            return
        if question == RESET:
            conversation.forget()
        elif question.startswith("/"):
            notify(f"{printable(question)}: unknown, there are {RESET} and {QUIT}")
        elif question:
            try:
                answers = conversation.ask(question)
            except InputError as error:
                notify(user_sentence(error))
                continue
            yield answers


def terminal_lines() -> Iterator[str]:
    """Yields the lines that are typed after a prompt, where keys may edit them."""
    with suppress(ImportError):
        import readline  # noqa: F401 - input() edits with it once it is imported
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
        except UnicodeDecodeError as error:
            notify(f"the line is not {error.encoding}; type it again")


def pipe_lines() -> Iterator[str]:
    """Yields the lines of standard input, bytes that are no UTF-8 replaced."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", errors="replace")


def layout(names: Sequence[str], answers: Sequence[str], *, width: int | None) -> str:
    """Returns the answers as they are printed; `width` is a terminal's, in cells."""
    if len(answers) == 1:
        return printable(answers[0])
    if width is not None and has_room_for_columns(width):
        left, right = map(with_name, names, answers)
        return in_columns(left, right, width=width)
    return "\n".join(
        printable(with_name(*pair)) for pair in zip(names, answers, strict=True)
    )


def with_name(name: str, answer: str) -> str:
    """Puts the model's name above its answer."""
    return f"[{name}]\n{answer}"


def notify(sentence: str) -> None:
    """Prints what is no answer, on standard error."""
    print(sentence, file=sys.stderr, flush=True)


def run() -> None:
    """Starts the command."""
    define_sections(SECTIONS)
    start(
        work,
        module="isara_jax.tools.chat",
        to_save_memory="--max_new_tokens, or leave --other out",
    )


if __name__ == "__main__":
    run()
