"""From JSONL to JSONL with a tiny model: whatever the slots, and over a SIGTERM."""

import functools
import json
import os
import re
import signal

import pytest
import torch
import transformers
from absl import flags
from peft_twin import drawn_adapters
from processes import run_module
from tiny_families import drawn
from tiny_run import one_device, tiny_tokenizer, write_jsonl, write_tiny_llama

from isara_jax.cli.flags import define_sections
from isara_jax.engine.engine import Engine
from isara_jax.errors import InputError
from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.checkpoints.save import save_hugging_face
from isara_jax.models.lora.lora import merge
from isara_jax.models.lora.peft import write_adapters
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.signals import StopRequested
from isara_jax.tools import generate

PROMPTS = [
    "the cat",
    "who ran on the roof that is far away ? " * 12,
    " it is true that",
    "the dog sat",
    "is",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "llama"
    write_tiny_llama(folder)
    return folder


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"prompt": text} for text in PROMPTS])
    return tmp_path


@pytest.fixture
def arguments(model, files):
    def with_changes(**changes):
        values = {
            "model": model,
            "input": files / "in.jsonl",
            "output": files / "out.jsonl",
            "dtype": "float32",
            "max_new_tokens": 12,
            "max_slots": 2,
            "mesh_data": 1,
            "compilation_cache": "",
        }
        return [f"--{name}={value}" for name, value in (values | changes).items()]

    return with_changes


@pytest.fixture
def work(arguments):
    def run(*more, **changes):
        values = flags.FlagValues()
        define_sections(generate.SECTIONS, values)
        values(["generate", *arguments(**changes), *more])
        generate.work(values)

    return run


@pytest.fixture
def completed(work, files):
    """Runs the command and returns the lines of its output."""

    def run(*more, output="out.jsonl", **changes):
        work(*more, output=files / output, **changes)
        return read_lines(files / output)

    return run


def read_lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_an_adapter_is_merged_and_fixes_the_output(model, completed, tmp_path):
    mesh, greedy = make_mesh(data=1, model=1), {"temperature": 0, "top_k": 0}
    base = load_model(open_model(model), dtype="float32", mesh=mesh)
    adapters = drawn_adapters(base, "mlp")
    write_adapters(tmp_path / "adapter", adapters, base.config, base="")
    whole = merge(base, adapters, mesh=mesh)
    save_hugging_face(tmp_path / "whole", whole, tiny_tokenizer())
    found = completed(adapter=tmp_path / "adapter", **greedy)
    wanted = completed(model=tmp_path / "whole", output="wanted.jsonl", **greedy)
    assert [line["text"] for line in found] == [line["text"] for line in wanted]
    plain = completed(output="plain.jsonl", **greedy)
    assert [line["text"] for line in found] != [line["text"] for line in plain]
    write_adapters(
        tmp_path / "adapter", drawn_adapters(base, "q"), base.config, base=""
    )
    with pytest.raises(InputError, match="hash of the adapter"):
        completed(adapter=tmp_path / "adapter", **greedy)


def test_greedy_completions_are_those_of_transformers(model, completed):
    lines = completed(temperature=0, top_k=0)
    assert [line["id"] for line in lines] == [1, 2, 3, 4, 5]
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    twin = transformers.AutoModelForCausalLM.from_pretrained(model)
    for line, text in zip(lines, PROMPTS, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            whole = twin.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=12,
                do_sample=False,
                pad_token_id=0,
            )
            new = whole[0, ids.shape[1] :]
            each = torch.log_softmax(twin(whole).logits[0, ids.shape[1] - 1 : -1], -1)
        assert line["text"] == tokenizer.decode(new, skip_special_tokens=True).strip()
        assert line["prompt_tokens"] == ids.shape[1]
        assert line["new_tokens"] == len(new)
        ended = new[-1] == tokenizer.eos_token_id
        assert line["finish"] == ("eos" if ended else "length")
        total = each[range(len(new)), new].sum().item()
        assert line["log_probability"] == pytest.approx(total, rel=1e-4)


def assert_same_samples(lines, others):
    """Equal but for the rounding of sums, whose order depends on a batch's shape."""
    for line, other in zip(lines, others, strict=True):
        about = pytest.approx(other["log_probability"], rel=1e-5)
        assert line == other | {"log_probability": about}


def test_samples_do_not_depend_on_the_slots(completed):
    one, two, five = (completed(output=f"{n}", max_slots=n) for n in (1, 2, 5))
    assert_same_samples(one, two)
    assert_same_samples(one, five)


def test_samples_depend_on_the_seed(completed):
    def texts(seed):
        lines = completed(seed=seed, output=f"{seed}.jsonl")
        return [line["text"] for line in lines]

    assert texts(1) != texts(2)


def test_a_question_is_written_with_its_template_and_ends_at_its_stops(
    completed, files, monkeypatch
):
    write_jsonl(files / "in.jsonl", [{"question": " is it true ? ", "id": "a"}])
    written, endings = [], []

    def noted(engine, prompts, *, stop_criteria, **keywords):
        written.extend(prompts)
        endings.append(stop_criteria)
        return real(engine, prompts, stop_criteria=stop_criteria, **keywords)

    real = Engine.generate
    monkeypatch.setattr(Engine, "generate", noted)
    tokenizer = tiny_tokenizer()
    for template in ("paper", "chat"):
        (line,) = completed("--stop=zz", template=template, output=template)
        assert line["id"] == "a"
        assert line["prompt_tokens"] == len(written[-1].token_ids)
    paper, chat = (
        tokenizer.hugging_face.decode(prompt.token_ids) for prompt in written
    )
    assert paper == "BEGINNING OF CONVERSATION: USER: is it true ? ASSISTANT:"
    assert chat == "<|im_start|>user\nis it true ?<|im_end|>\n<|im_start|>assistant\n"
    assert "USER" in endings[0].stops and endings[0].stops[-1] == "zz"
    assert endings[1].stops == ("zz",)


def test_a_prompt_ends_at_the_given_stops_alone(completed):
    whole = completed(temperature=0, top_k=0)[0]["text"]
    stop, other = whole[4:6], whole[7:9]
    cut = completed(
        f"--stop={stop}", f"--stop={other}", temperature=0, top_k=0, output="cut"
    )[0]
    assert cut["text"] == whole[: whole.index(stop, 1)].strip()
    assert cut["finish"] == "stop"


def test_a_sigterm_stops_between_stretches_and_the_same_command_goes_on(
    work, completed, files, monkeypatch
):
    undisturbed = completed(output="undisturbed.jsonl")
    real, asked = Engine.generate, []

    def terminated(engine, prompts, *, done, **keywords):
        asked.append(set(done))
        for completions in real(engine, prompts, done=done, **keywords):
            yield completions
            if not done:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Engine, "generate", terminated)
    with pytest.raises(StopRequested):
        work()
    kept = {line["id"] for line in read_lines(files / "out.jsonl.partial")}
    assert 0 < len(kept) < len(undisturbed)
    assert not (files / "out.jsonl").exists()
    assert completed() == undisturbed
    assert asked == [set(), kept]
    assert not (files / "out.jsonl.partial").exists()


def test_another_number_of_slots_may_go_on(work, completed, monkeypatch):
    undisturbed = completed(output="undisturbed.jsonl")
    real = Engine.generate

    def once(engine, prompts, **keywords):
        yield next(real(engine, prompts, **keywords))
        raise StopRequested

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "generate", once)
        with pytest.raises(StopRequested):
            work()
    assert_same_samples(completed(max_slots=1), undisturbed)


def test_a_complete_output_is_left_alone_without_reading_the_weights(
    work, completed, files, monkeypatch, capfd
):
    completed()
    before = (files / "out.jsonl").read_bytes()
    monkeypatch.setattr(generate.TextModel, "load", None)
    work(max_slots=1)
    assert (files / "out.jsonl").read_bytes() == before
    assert "out.jsonl: is complete, nothing is left to do" in capfd.readouterr().err


def test_other_settings_and_another_input_are_refused(work, completed, files):
    completed()
    for sentence, more in (
        ("top_k=50, not 7", ["--top_k=7"]),
        ("stop=[], not ['x']", ["--stop=x"]),
    ):
        with pytest.raises(InputError, match=re.escape(f"was begun with {sentence}")):
            work(*more)
    write_jsonl(files / "in.jsonl", [{"prompt": "another"}])
    with pytest.raises(InputError, match="was begun with hash of the input="):
        work()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": ""}, "--model: must be given"),
        ({"input": ""}, "--input: must be given"),
        ({"output": ""}, "--output: must be given"),
        ({"stop": ""}, "--stop: must not be empty"),
        ({"max_slots": -1}, "--max_slots=-1: must be 0 or more"),
        ({"max_new_tokens": 0}, "--max_new_tokens=0: must be >= 1"),
        ({"input": "none.jsonl"}, "none.jsonl: no such file"),
        ({"max_new_tokens": 400}, "the prompt 2 has "),
    ],
)
def test_wrong_input_is_one_sentence(work, files, changes, sentence):
    with pytest.raises(InputError) as caught:
        work(**changes)
    assert str(caught.value).startswith(sentence)
    assert not (files / "out.jsonl").exists()


def test_a_judge_writes_no_text(work, tmp_path):
    judge = tmp_path / "judge"
    drawn("LLaMA 14 labels").save_pretrained(judge)
    with pytest.raises(InputError, match=r"judge: the model has a score head \(14 "):
        work(model=judge)


def test_the_command_itself(arguments, files):
    run = functools.partial(
        run_module, "isara_jax.tools.generate", *arguments(), **one_device()
    )
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{files / 'out.jsonl'}\n"
    assert "completions: 5 of 5 samples" in done.stderr
    lines = read_lines(files / "out.jsonl")
    assert [set(line) for line in lines] == 5 * [
        {"id", "text", "finish", "prompt_tokens", "new_tokens", "log_probability"}
    ]
    refused = run("--top_k=-1")
    assert refused.returncode == 2
    assert refused.stderr == "--top_k=-1: must be >= 0\n" and refused.stdout == ""
