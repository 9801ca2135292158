"""The command over a pipe, and over a terminal, with the tiny model."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from tiny_run import ROOT, one_device, tiny_tokenizer, write_tiny_llama

from isara_jax.cli.flags import define_sections
from isara_jax.errors import InputError
from isara_jax.prompts import PlainTemplate
from isara_jax.prompts.templates import ChatTemplate
from isara_jax.tools import chat
from isara_jax.tools.conversation import Conversation


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "llama"
    write_tiny_llama(folder)
    return folder


def command(model, *more):
    return [
        *(sys.executable, "-m", "isara_jax.tools.chat", f"--model={model}"),
        *("--max_new_tokens=12", "--compilation_cache=", *more),
    ]


def talk(text, *arguments):
    return subprocess.run(
        command(*arguments),
        input=text,
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=one_device(),
    )


def test_a_pipe_gets_answers_only(model):
    lines = b"who ran ?\n\n/frob\x1b\nis \xff it ?\n/reset\nwho ran ?"
    done = talk(lines, model, "--temperature=0", "--dtype=float32")
    assert done.returncode == 0
    assert done.stderr.decode() == r"/frob\x1b: unknown, there are /reset and /quit" + (
        "\n"
    )
    first, _, third = done.stdout.decode().splitlines()
    assert first == third != ""


def test_two_models_answer_one_under_the_other(model):
    done = talk(b"who ran ?\n/quit\nignored\n", model, f"--other={model}")
    assert done.returncode == 0 and done.stderr == b""
    name, answer, *rest = done.stdout.decode().splitlines()
    assert name == f"[{model}]" and rest == [name, answer]


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--model=", "--model: must be given"),
        ("--model=nowhere", "'nowhere': no such file or folder"),
        ("--temperature=-1", "--temperature=-1.0: must be >= 0"),
        ("--other_adapter=x", "--other_adapter=x: needs --other"),
    ],
)
def test_wrong_input_is_one_sentence(argument, sentence):
    values = flags.FlagValues()
    define_sections(chat.SECTIONS, values)
    values(["chat", "--model=nowhere", argument])
    with pytest.raises(InputError) as caught:
        chat.work(values)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("flag", ["adapter", "other_adapter"])
def test_each_model_has_its_own_adapter(model, flag):
    values = flags.FlagValues()
    define_sections(chat.SECTIONS, values)
    values(["chat", f"--model={model}", f"--other={model}", f"--{flag}=nowhere"])
    with pytest.raises(InputError, match="'nowhere': no such file or folder"):
        chat.work(values)


def test_a_terminal_has_a_prompt_and_ends_at_an_interrupt(model):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # A job in the background is started deaf to SIGINT, and so are its children.
        ["env", "--default-signal=INT", *command(model, f"--other={model}")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=one_device() | {"COLUMNS": "100", "TERM": "dumb"},
    )
    os.close(theirs)
    try:
        assert f"{model} and {model}; /reset forgets" in read_until(ours, "> ")
        os.write(ours, b"who ran ?\n")
        assert " | [" in read_until(ours, "\n> ")
        assert interrupted(process) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def interrupted(process, *, presses=6):
    """Presses Ctrl-C until it is heard.

    Python's `input` does not hear one that falls between its prompt and its read.
    """
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=10)
    raise AssertionError(f"deaf to {presses} interrupts")


def read_until(terminal, end, *, seconds=120):
    seen, until = "", time.monotonic() + seconds
    while end not in seen.replace("\r", ""):
        ready, _, _ = select.select([terminal], [], [], until - time.monotonic())
        assert ready, f"no {end!r} after {seen!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen.replace("\r", "")


def test_lines_of_a_terminal_end_at_ctrl_d_and_are_text(monkeypatch, capfd):
    coming = iter(["a", UnicodeDecodeError("utf-8", b"", 0, 1, ""), "b", EOFError()])

    def typed(prompt):
        line = next(coming)
        if isinstance(line, Exception):
            raise line
        return line

    monkeypatch.setattr("builtins.input", typed)
    assert list(chat.terminal_lines()) == ["a", "b"]
    assert capfd.readouterr().err == "the line is not utf-8; type it again\n"


def test_the_template_follows_from_the_tokenizer_unless_it_is_named():
    tokenizer = tiny_tokenizer()
    assert isinstance(chat.choose_template("auto", tokenizer), ChatTemplate)
    named = chat.choose_template("paper", tokenizer)
    assert named == PlainTemplate(answer_lead="")
    tokenizer.hugging_face.chat_template = None
    spaced = chat.choose_template("auto", tokenizer)
    assert spaced == PlainTemplate(answer_lead=" ")
    with pytest.raises(InputError, match="template=chat: the tokenizer has no chat"):
        chat.choose_template("chat", tokenizer)


NAMES = ("A", "\x1b[1mB")
ANSWERS = ("one\x07", "two\x1b[0m")


@pytest.mark.parametrize("width", [None, 60])
def test_two_answers_stand_under_each_other_where_there_is_no_room(width):
    shown = chat.layout(NAMES, ANSWERS, width=width)
    assert shown == "[A]\none\\x07\n[\\x1b[1mB]\ntwo\\x1b[0m"


def test_two_answers_stand_in_columns_where_there_is_room():
    shown = chat.layout(NAMES, ANSWERS, width=83).split("\n")
    assert shown == [
        f"{'[A]':40} | [\\x1b[1mB]",
        f"{'one' + chr(92) + 'x07':40} | two\\x1b[0m",
    ]


def test_one_answer_stands_alone():
    assert chat.layout(NAMES[:1], ANSWERS[:1], width=83) == r"one\x07"


class Overfull(Conversation):
    """A conversation whose second question does not fit."""

    def __init__(self):
        self.questions = []
        self.forgotten = 0

    def ask(self, question):
        self.questions.append(question)
        if len(self.questions) == 2:
            raise InputError("too long")
        return [question.upper()]

    def forget(self):
        self.forgotten += 1


def test_a_question_that_fails_does_not_end_the_conversation(capfd):
    talk = Overfull()
    lines = ["a\n", "b", " ", "/reset", "\udcff", "/quit", "d"]
    answers = list(chat.answers_to(lines, talk))
    assert answers == [["A"], ["?"]]
    assert talk.questions == ["a", "b", "?"] and talk.forgotten == 1
    assert capfd.readouterr().err == "too long\n"
