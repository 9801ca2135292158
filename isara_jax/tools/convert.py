"""Turns a model of any source into a folder for Hugging Face's programs or for Orbax.

    python -m isara_jax.tools.convert --source=ANY --target=FOLDER --to=hf

`hf` writes safetensors files, `orbax` a flat tree of the same tensors under the same
names in FOLDER/orbax; beside them stand config.json, the tokenizer, the generation
config, the licence and a card. Both are sources of every command here.

Tensors go from file to file; about 1 GB of them is in memory at a time. The folder
appears by one rename when it is whole, and with --verify only after the model in it has
said of a fixed text what the source says; that loads both models, one after the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from isara_jax.cli import Section, define_sections, sections_from_flags, start
from isara_jax.errors import EnvironmentFailure, FieldError, InputError
from isara_jax.models.checkpoints import (
    Difference,
    OpenedModel,
    arithmetic,
    convert_description,
    convert_weights,
    difference,
    divergence_limit,
    open_model,
    outputs,
    text_tokens,
    write_card,
)
from isara_jax.runtime import (
    StopRequested,
    StopSignal,
    locate,
    progress,
)
from isara_jax.runtime.files import atomic_dir


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What is converted into what."""

    source: str = field(
        default="",
        metadata={
            "help": "a folder of Hugging Face's or Orbax's, a .gguf file, a hub id, or "
            "package:NAME"
        },
    )
    adapter: str = field(
        default="",
        metadata={
            "help": "a folder or hub id of an adapter in PEFT's format, which is "
            "merged into `source`; empty: none"
        },
    )
    target: str = field(default="", metadata={"help": "the folder to write"})
    to: Literal["hf", "orbax"] = field(
        default="hf", metadata={"help": "whose programs are to read the folder"}
    )
    dtype: Literal["bfloat16", "float16", "float32"] = field(
        default="bfloat16", metadata={"help": "of the weights that are written"}
    )
    verify: bool = field(
        default=False,
        metadata={
            "help": "compare what was written with the source, and keep it if "
            "the two say the same"
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "replace the model's folder that is there"}
    )

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            if not getattr(self, name):
                raise FieldError(name, "", "must be given")


SECTIONS = {"job": Section(kind=ConvertConfig)}


def work(job: ConvertConfig) -> None:
    """Converts, and verifies where that is asked for.

    Raises:
      InputError: the source is damaged, or the target may not be written.
      EnvironmentFailure: the machine or the user stopped it, or the two differ.
    """
    source = locate(job.source)
    target = Path(job.target).expanduser().resolve()
    validate_target(target, source=source.resolve(), overwrite=job.overwrite)
    with StopSignal() as signal:
        try:
            convert(job, source, target, check=signal.check)
        except (StopRequested, KeyboardInterrupt):
            raise EnvironmentFailure(
                f"Stopped; nothing of {target} was written"
            ) from None
    print(target)


def convert(
    job: ConvertConfig, source: Path, target: Path, *, check: Callable[[], None]
) -> None:
    """Writes the target beside its place, and moves it there when it is whole."""
    adapter = locate(job.adapter) if job.adapter else None
    opened = open_model(source, adapter=adapter)
    # Both are checked before hours of writing.
    tokenizer, tensors = opened.tokenizer, opened.tensors
    with atomic_dir(target) as folder:
        with progress(
            "convert", total=len(tensors.readers), done=0, unit="tensors"
        ) as advance:

            def count() -> None:
                check()
                advance(1)

            found = convert_weights(
                folder, opened, to=job.to, dtype=job.dtype, advance=count
            )
        convert_description(folder, opened, tokenizer, dtype=job.dtype)
        write_card(
            folder,
            title=target.name,
            base=job.source,
            adapter=job.adapter,
            license=opened.licence,
            found=found,
            dtype=job.dtype,
        )
        check()
        if job.verify:
            verify(opened, open_model(folder), found=found, dtype=job.dtype)
            check()


def verify(
    source: OpenedModel, written: OpenedModel, *, found: frozenset[str], dtype: str
) -> None:
    """Prints how far the written model is from its source.

    Raises:
      EnvironmentFailure: it is farther than rounding to its dtype explains.
    """
    config = source.config
    tokens = text_tokens(source.tokenizer, context=config.context)
    if text_tokens(written.tokenizer, context=config.context) != tokens:
        raise EnvironmentFailure(
            "--verify: the tokenizer that was written splits a text in another way "
            "than the source's; nothing is kept"
        )
    run = partial(outputs, tokens=tokens, dtype=arithmetic(found, dtype))
    kind = "logits" if config.score is None else "scores"
    measured = difference(run(source), run(written), kind=kind)
    limit = divergence_limit(found, dtype)
    print(_sentence(measured, kind=kind, limit=limit))
    if not measured.divergence <= limit:  # NaN is refused too
        raise EnvironmentFailure(
            f"--verify: the written model is {measured.divergence:.3g} nats a token "
            f"from its source, and rounding to {dtype} explains {limit:g}; nothing is "
            "kept"
        )


def validate_target(target: Path, *, source: Path, overwrite: bool) -> None:
    """Checks that the target is free, or a model's folder that may be replaced.

    Raises:
      InputError: it is not.
    """
    if target == source or target in source.parents:
        raise InputError(f"--target={target}: holds the source; choose another folder")
    if any(parent.is_file() for parent in target.parents):
        raise InputError(f"--target={target}: lies in a file, must lie in a folder")
    if not target.exists():
        return
    if not overwrite:
        raise InputError(
            f"--target={target}: exists already; choose another folder, or give "
            "--overwrite to replace it"
        )
    is_model = (target / "config.json").is_file()
    if not is_model and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(
            f"--target={target}: --overwrite replaces a model's folder only, and this "
            "has no config.json"
        )


def _sentence(measured: Difference, *, kind: str, limit: float) -> str:
    return (
        f"verify: {measured.positions} tokens, largest difference of the {kind} "
        f"{measured.largest:.3g}, mean KL {measured.divergence:.3g} nats (at most "
        f"{limit:g})"
    )


def run() -> None:
    """Starts the command."""
    define_sections(SECTIONS)
    start(
        lambda: work(sections_from_flags(SECTIONS)["job"]),
        module="isara_jax.tools.convert",
        to_save_memory="its use by leaving --verify out",
    )


if __name__ == "__main__":
    run()
