"""The real SmolLM2-135M-Instruct against transformers on torch, both in fp32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from pretrained import SMOLLM2, needs_smollm2
from training import collate_padded
from whole_rows import logits_of

from isara_jax.engine.engine import Engine
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.finetune.data.padding import padded_shape
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.loss import answer_loss
from isara_jax.models.checkpoints.load import load_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.sources import locate

pytestmark = [needs_smollm2, pytest.mark.optimized]

TEXTS = (
    "Bats see quite well, and many also use echoes of their own calls to find insects.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Im Jahr 1905 veröffentlichte Albert Einstein vier Arbeiten in den Annalen.",
    "1 + 1 = 2, 2 + 2 = 4, 4 + 4 = 8, 8 + 8 = 16, 16 + 16 = 32,",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\nLight",
)
PROMPTS = (
    "The",
    "Water boils at",
    "Once upon a time",
    "The capital of France is",
    "import numpy as np\n\ndef",
    "Dear Sir or Madam,\n\nI am writing",
    "Q: Do we use only a tenth of our brain?\nA:",
    "List three things that float on water.\n1.",
    "The opposite of hot is cold. The opposite of up is",
    "In 1969, two people walked on the Moon for the first time. They",
    "Translate to French: the cat sleeps on the chair.\nFrench:",
    *(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        for question in (
            "Hi",
            "Name a prime number.",
            "Is glass a slow liquid?",
            "Does sugar make children hyperactive?",
            "What do bats use to find their way in the dark?",
            "Write one sentence about a lighthouse and a storm.",
            "Can lightning strike the same place twice, and why?",
        )
    ),
    "".join(f"USER: {n} + {n}? ASSISTANT: {2 * n}\n" for n in range(1, 9)) + "USER: 9",
    "Sand is made of small grains of rock. " * 12 + "A desert is",
)
NEW_TOKENS = 64


@pytest.fixture(scope="module")
def tokenizer():
    return open_model(locate(SMOLLM2)).tokenizer


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=1, model=1)


@pytest.fixture(scope="module")
def ours(mesh):
    return load_model(open_model(locate(SMOLLM2)), dtype="float32", mesh=mesh)


@pytest.fixture(scope="module")
def theirs():
    path = locate(SMOLLM2)
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()


def padded(rows, *, to_the):
    width = max(len(row) for row in rows)
    tokens, mask = np.zeros((2, len(rows), width), int)
    for number, row in enumerate(rows):
        at = slice(width - len(row), None) if to_the == "left" else slice(len(row))
        tokens[number, at], mask[number, at] = row, 1
    return tokens, mask


def test_weights_are_the_same(ours, theirs):
    expected = theirs.state_dict()
    for name, value in named_tensors(ours):
        np.testing.assert_allclose(value, expected[name].numpy(), atol=1e-6)


def test_logits_are_the_same(ours, theirs, tokenizer):
    tokens, mask = padded([tokenizer.encode(text) for text in TEXTS], to_the="right")
    with torch.no_grad():
        expected = theirs(
            torch.tensor(tokens), attention_mask=torch.tensor(mask)
        ).logits.numpy()
    got = np.asarray(logits_of(ours, tokens, mask))
    for row in range(len(TEXTS)):
        there = mask[row] == 1
        np.testing.assert_allclose(got[row, there], expected[row, there], atol=1e-3)


@pytest.mark.slow
def test_greedy_continuations_are_the_same(ours, theirs, tokenizer, mesh):
    rows = [tuple(tokenizer.encode(text)) for text in PROMPTS]
    assert len(rows) == 20 and len({len(row) for row in rows}) > 10
    prompts = [
        Request(id=str(number), sample_index=number, token_ids=row)
        for number, row in enumerate(rows)
    ]
    # Fewer slots than prompts, so that most are refilled.
    engine = Engine(
        model=ours, mesh=mesh, slots=8, context=ours.config.context, check=lambda: None
    )
    got = {
        int(completion.id): completion.tokens
        for completions in engine.generate(
            prompts,
            sampling_params=SamplingParams(max_new_tokens=NEW_TOKENS, temperature=0.0),
            stop_criteria=StopCriteria(
                eos=tokenizer.eos, stops=(), decode=tokenizer.decode
            ),
            key=jax.random.key(0),
        )
        for completion in completions
    }
    expected = greedy(theirs, rows, eos=tokenizer.eos[0])
    for number, text in enumerate(PROMPTS):
        assert got[number] == expected[number], text


def greedy(model, rows, *, eos):
    tokens, mask = padded(rows, to_the="left")
    with torch.no_grad():
        written = model.generate(
            torch.tensor(tokens),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=eos,
            pad_token_id=eos,
        )[:, tokens.shape[1] :].tolist()
    return [tuple(row[: row.index(eos) + 1] if eos in row else row) for row in written]


PAIRS = (
    ("Do bats see?", "Yes, quite well."),
    ("Is the Great Wall visible from the Moon?", "No, it is far too narrow for that."),
    ("Why do leaves fall?", "Trees save water in winter by shedding them."),
    ("What is 2 + 2?", "4"),
)


def test_loss_and_gradients_are_the_same(ours, theirs, tokenizer):
    examples = [
        TrainingExample(
            id=question,
            prompt_tokens=tuple(tokenizer.encode(f"USER: {question} ASSISTANT:")),
            answer_tokens=(*tokenizer.encode(f" {answer}"), tokenizer.eos[0]),
        )
        for question, answer in PAIRS
    ]
    loss, gradients = our_loss_and_gradients(ours, examples)
    expected = their_loss(theirs, examples)
    assert loss == pytest.approx(expected, rel=1e-3)
    named = dict(theirs.named_parameters())
    for name, gradient in named_tensors(gradients):
        their_gradient = named[name].grad.numpy()
        difference = np.linalg.norm(gradient - their_gradient)
        assert difference < 1e-3 * np.linalg.norm(their_gradient), name


def our_loss_and_gradients(model, examples):
    """Returns the mean over the answers' tokens, as a step of the trainer does."""
    shape = padded_shape(examples, rows=len(examples), micro_batches=1)
    batch = collate_padded(examples, shape=shape)
    batch = type(batch)(*(jnp.asarray(array[:, 0]) for array in batch))

    def mean(model):
        return answer_loss(model, batch, remat="full") / jnp.sum(batch.loss_mask)

    loss, gradients = jax.jit(jax.value_and_grad(mean))(model)
    return float(loss), gradients


def their_loss(model, examples):
    rows = [example.prompt_tokens + example.answer_tokens for example in examples]
    tokens, mask = padded(rows, to_the="right")
    labels = np.where(mask == 1, tokens, -100)
    for row, example in enumerate(examples):
        labels[row, : len(example.prompt_tokens)] = -100
    model.zero_grad()
    loss = model(
        torch.tensor(tokens),
        attention_mask=torch.tensor(mask),
        labels=torch.tensor(labels),
    ).loss
    loss.backward()
    return loss.item()
