"""The conversion as its command runs it, and models to convert."""

from absl import flags
from llama_files import (
    gguf_metadata,
    gguf_tensors,
    write_gguf,
    write_llama,
    write_tokenizer,
)

from isara_jax.cli import command
from isara_jax.cli.flags import define_sections, sections_from_flags
from isara_jax.tools import convert as module


def convert(**values):
    """Runs the command in this process; returns its exit code."""
    own = flags.FlagValues()
    define_sections(module.SECTIONS, own)
    own(["convert", *(f"--{name}={value}" for name, value in values.items())])
    return command.exit_code(
        ["convert"],
        work=lambda: module.work(sections_from_flags(module.SECTIONS, own)["job"]),
        module=module.__name__,
        to_save_memory="",
    )


def write_folder(folder, **attributes):
    """Writes a LLaMA in several files with an index, and its tokenizer."""
    reference = write_llama(folder, shard_size="20KB", **attributes)
    write_tokenizer(folder)
    return reference


def write_gguf_file(path, reference):
    """Writes the model with a vocabulary that transformers turns into a tokenizer."""
    size = reference.config.vocab_size
    words = [f"\u2581{chr(97 + number)}" for number in range(size - 3)]
    metadata = gguf_metadata(reference) | {
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *words],
        "tokenizer.ggml.scores": [float(-number) for number in range(size)],
        "tokenizer.ggml.token_type": [2, 3, 3, *[1] * (size - 3)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return write_gguf(path, metadata, gguf_tensors(reference))


def contents(folder):
    return sorted(path.name for path in folder.iterdir())
