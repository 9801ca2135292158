"""The programs of a run, made ready to be compiled from shapes alone.

They are the ones that the trainer and the engine call, at the largest shapes that the
settings allow: every example as long as --max_length, every prompt as long as its
budget. Nothing of the model's size is allocated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from isara_jax.engine.batches import Prompt, plan
from isara_jax.engine.beam import BeamState, laid_out, search, start
from isara_jax.engine.continuous import decode, empty_state, rows_that_fit
from isara_jax.engine.cuts import chunks_of, widths
from isara_jax.engine.path import advance, empty_row, path_capacity
from isara_jax.engine.schedule import Group, groups, useful_slots
from isara_jax.engine.stack import Stack, stacked
from isara_jax.finetune.batches import Batch, TrainingExample, abstract_batch
from isara_jax.finetune.plan import make_plan
from isara_jax.finetune.state import abstract_state
from isara_jax.finetune.step import train_step
from isara_jax.fit.bounds import Work, chunk_work, rows_work, step_work, token_work
from isara_jax.fit.setting import Setting, bytes_on_device
from isara_jax.runtime.mesh import Mesh, abstract_on, platform_of, sharding_for

# A question that is answered, or the lead of one that is drafted, in tokens: a prompt
# has it after its demonstrations.
OPEN_TURN = 128


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program, and what is known of it before it is compiled.

    `parts` are the bytes on a device of what it is given, by name, and `beside` those
    of what lies there meanwhile without being given to it. `lower` may itself compile
    small programs.
    """

    name: str
    unit: str
    parts: dict[str, int]
    beside: dict[str, int]
    work: Work
    lower: Callable[[], jax.stages.Lowered]


def programs_of(setting: Setting) -> Iterator[Program]:
    """Yields the train step, and what prompts and their continuations run through."""
    yield train_program(setting)
    if setting.decoding.beams > 1:
        yield from beam_programs(setting)
    else:
        yield from slot_programs(setting)


def train_program(setting: Setting) -> Program:
    """Returns an optimizer step on rows full of examples."""
    config, mesh = setting.finetuning, setting.mesh
    length = min(config.max_length, setting.shape.context)
    count = config.train_batch * config.accumulation
    examples = [
        TrainingExample(id="", prompt_tokens=(0,), answer_tokens=(0,) * (length - 1))
    ] * count
    shape = make_plan(
        examples, config=config, epochs=1, round=1, seed=0, mesh=mesh
    ).shape
    state = abstract_state(setting.trained, config=config, mesh=mesh)
    batch = Batch(*(_over_data(array, mesh) for array in abstract_batch(shape)))
    return Program(
        name=f"train step, {shape.micro_batches} x {shape.rows} rows of {shape.length}",
        unit="step",
        parts={
            "parameters": bytes_on_device(state.model),
            "optimizer state": bytes_on_device(state.optimizer),
            "batch": bytes_on_device(batch),
        }
        | _frozen(setting),
        beside={},
        work=step_work(
            setting,
            examples=count,
            length=length - 1,
            micro_batches=shape.micro_batches,
            state=bytes_on_device(state),
        ),
        lower=lambda: train_step.lower(
            state,
            batch,
            learning_rate=_whole((), jnp.float32, mesh),
            key=_key((), mesh),
            config=config,
            dtype=jnp.dtype(setting.dtype),
            mesh=mesh,
            base=setting.base,
        ),
    )


def slot_programs(setting: Setting) -> Iterator[Program]:
    """Yields a chunk of a prompt on the path, and a token in every slot."""
    mesh, decoding = setting.mesh, setting.decoding
    stack, group = _stack(setting), planned_group(setting)
    reached = max(group.longest, group.capacity)
    make_path = partial(empty_row, capacity=path_capacity(reached, mesh), mesh=mesh)
    make_slots = partial(
        empty_state,
        rows=group.rows,
        capacity=group.capacity,
        shared=group.shared_room,
        new_tokens=decoding.max_new_tokens,
        mesh=mesh,
    )
    path, state = _made(make_path, stack), _made(make_slots, stack)
    slots = {
        "KV cache": bytes_on_device(state.cache),
        "texts and logits": bytes_on_device(state) - bytes_on_device(state.cache),
    }
    held = {"parameters": bytes_on_device(setting.weights)}
    copied = {"layers, copied": bytes_on_device(stack.blocks)}
    beside = (copied if len(stack.blocks) > 1 else {}) | _frozen(setting)
    width = max(chunks_of(group.longest, within=widths(mesh)))
    number = _whole((), jnp.int32, mesh)
    yield Program(
        name=f"prompt, {width} positions of {group.longest}",
        unit="chunk",
        parts=held | {"path": bytes_on_device(path)},
        beside=slots | beside,
        work=chunk_work(setting, width=width, end=group.longest),
        lower=lambda: advance.lower(
            stack,
            _whole((1, width), jnp.int32, mesh),
            path,
            start=number,
            last=number,
            reach=path.reach(group.longest),
            mesh=mesh,
        ),
    )
    yield Program(
        name=f"decoding, {group.rows} slots of {group.capacity}",
        unit="token of every slot",
        parts=held | slots,
        beside={"path": bytes_on_device(path)} | beside,
        work=token_work(setting, rows=group.rows, length=group.capacity - 1),
        lower=lambda: decode.lower(
            stack,
            state,
            _replicated(decoding.strengths, mesh),
            eos=_whole((1,), jnp.int32, mesh),
            form=decoding.form,
            steps=number,
            mesh=mesh,
        ),
    )


def beam_programs(setting: Setting) -> Iterator[Program]:
    """Yields the prompts of a batch, and a token of every beam."""
    mesh, decoding, weights = setting.mesh, setting.decoding, setting.weights
    slots = setting.slots or useful_slots(platform_of(mesh))
    batch, *_ = plan(
        _prompts(setting),
        slots=slots // decoding.beams,
        row_multiple=mesh.shape["data"],
        max_new_tokens=decoding.max_new_tokens,
        context=setting.shape.context,
    )
    rows, length = batch.shape.rows, batch.shape.prompt
    tokens = _over_data(jax.ShapeDtypeStruct((rows, length), jnp.int32), mesh)
    begin = partial(
        start, beams=decoding.beams, new_tokens=decoding.max_new_tokens, mesh=mesh
    )
    state = _made(
        partial(_laid_out, jax.eval_shape(begin, weights, tokens, tokens), mesh)
    )
    held, beside = {"parameters": bytes_on_device(weights)}, _frozen(setting)
    yield Program(
        name=f"prompts of beams, {rows} rows of {length}",
        unit="batch",
        parts=held,
        beside=beside,
        work=rows_work(setting, rows=rows, length=length),
        lower=lambda: jax.jit(begin).lower(weights, tokens, tokens),
    )
    cache = bytes_on_device(state.cache)
    others = {"texts and logits": bytes_on_device(state) - cache}
    yield Program(
        name=f"beam search, {rows} x {decoding.beams} beams",
        unit="token of every beam",
        parts=held | {"KV cache": cache} | others,
        beside=beside,
        work=token_work(setting, rows=rows, length=length, beams=decoding.beams),
        lower=lambda: search.lower(
            weights,
            state,
            _replicated(decoding.strengths, mesh),
            prompts=(tokens, tokens),
            keys=_key((rows,), mesh),
            eos=_whole((1,), jnp.int32, mesh),
            last=_whole((), jnp.int32, mesh),
            form=decoding.form,
        ),
    )


def _frozen(setting: Setting) -> dict[str, int]:
    """Returns what the base takes: it stays, even beside a model that was merged."""
    if setting.base is None:
        return {}
    return {"frozen base": bytes_on_device(setting.base)}


def _laid_out(shapes: BeamState, mesh: Mesh) -> BeamState:
    """Returns an empty state of beams in its places."""
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return laid_out(empty, mesh)


def planned_group(setting: Setting) -> Group:
    """Plans slots as the engine does, for as many as the memory has room for."""
    mesh, memory = setting.mesh, setting.machine.memory
    within = partial(
        groups,
        _prompts(setting),
        row_multiple=mesh.shape["data"],
        max_new_tokens=setting.decoding.max_new_tokens,
        context=setting.shape.context,
    )
    (group,) = within(slots=setting.slots or useful_slots(platform_of(mesh)))
    if memory is None:
        return group
    free = memory - bytes_on_device(setting.weights)
    room = rows_that_fit(_stack(setting), group, mesh=mesh, free=free)
    return group if room >= group.rows else within(slots=room)[0]


def _prompts(setting: Setting) -> list[Prompt]:
    """Returns as many prompts as a step has, of the greatest length."""
    context, new = setting.shape.context, setting.decoding.max_new_tokens
    length = max(1, min(setting.demo_tokens + OPEN_TURN, context - new))
    return [
        Prompt(id=str(number), number=number, tokens=(number,) * length)
        for number in range(setting.prompts)
    ]


def _stack(setting: Setting) -> Stack:
    """Returns the layers as the engine cuts them, in their places."""
    cut = jax.eval_shape(partial(stacked, mesh=setting.mesh), setting.weights)
    blocks = tuple(abstract_on(block, setting.mesh) for block in cut.blocks)
    return Stack(model=setting.weights, blocks=blocks)


def _made(make: Callable[..., Any], *inputs: Any) -> Any:
    """Returns what a compiled function makes, in the places that it gives it."""
    shapes = jax.eval_shape(make, *inputs)
    places = jax.jit(make).lower(*inputs).compile().output_shardings
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        shapes,
        places,
    )


def _over_data(array: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Places an array as `place_batch` would."""
    words = ("batch",) + ("time",) * (len(array.shape) - 1)
    place = sharding_for(words, array.shape, mesh)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)


def _whole(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    place = sharding_for(("time",) * len(shape), shape, mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _replicated(tree: Any, mesh: Mesh) -> Any:
    return jax.tree.map(lambda leaf: _whole(leaf.shape, leaf.dtype, mesh), tree)


def _key(shape: tuple[int, ...], mesh: Mesh) -> jax.ShapeDtypeStruct:
    return _whole(shape, jax.eval_shape(lambda: jax.random.key(0)).dtype, mesh)
