"""One flag a field: defaults, prefixes, wrong values, and the flagfiles we ship."""

import dataclasses
import re

import pytest
from absl import flags
from python_source import ROOT

from isara_jax.config import (
    SECTIONS,
    config_from_flags,
    define_flags,
    flag_names,
    result_settings,
)
from isara_jax.errors import InputError

GIVEN = ("--workdir=runs/x", "--seeds=seeds.jsonl")
FIELDS = {
    section.prefix + field.name: (attribute, field.name)
    for attribute, section in SECTIONS.items()
    for field in dataclasses.fields(section.kind)
}
FLAGFILES = sorted((ROOT / "configs").glob("**/*.flags"))


def parsed(*arguments):
    values = flags.FlagValues()
    define_flags(values)
    values(["isara_jax.main", *arguments])
    return values


def config_of(*arguments):
    return config_from_flags(parsed(*GIVEN, *arguments))


def test_every_field_is_a_flag_with_a_sentence_of_help():
    values = parsed()
    assert set(FIELDS) == {name for name in values if values[name].help}
    assert len(FIELDS) > 40


def test_defaults_are_the_fields_except_for_the_decodings():
    config = config_of()
    assert config.loop == SECTIONS["loop"].kind()
    assert config.finetuning == SECTIONS["finetuning"].kind()
    assert (config.question.max_new_tokens, config.answer.max_new_tokens) == (200, 100)
    assert config.question.repetition_penalty == 1.05
    assert config.answer.repetition_penalty == 1.2
    assert config.question.no_repeat_ngram == config.answer.no_repeat_ngram == 10
    assert config.question.top_k == 50 and config.question.temperature == 1
    assert config.question.beams == config.answer.beams == 5
    assert (config.question.length_penalty, config.answer.length_penalty) == (2, 1)
    assert decay(config.question) == (15, 1.6) and decay(config.answer) == (30, 1.05)


def decay(sampling_params):
    return (sampling_params.length_decay_start, sampling_params.length_decay_factor)


def test_a_flag_reaches_its_section_alone():
    config = config_of("--question_top_k=7", "--rounds=3", "--baselines=false")
    assert config.question.top_k == 7 and config.answer.top_k == 50
    assert config.loop.rounds == 3 and config.evaluation.baselines is False


def test_flags_change_results_or_are_operational():
    operational = set(flag_names(operational=True))
    assert operational == {
        *("workdir", "mesh_data", "mesh_model", "compilation_cache"),
        *("debug_examples", "train_save_minutes", "train_save_steps"),
        "train_keep_states",
    }
    assert set(flag_names(operational=False)) == set(FIELDS) - operational


def test_the_manifest_gets_the_value_of_every_flag_that_changes_results():
    values = parsed(*GIVEN, "--rounds=3", "--question_top_k=7")
    found = result_settings(config_from_flags(values))
    assert list(found) == flag_names(operational=False)
    assert found == {name: values[name].value for name in found}
    assert found["rounds"] == 3 and found["template"] == "paper"


def test_flags_survive_a_flagfile(tmp_path):
    changes = (
        *(
            "--rounds=3",
            "--alpha=0.25",
            "--template=chat",
            "--unfinished_answers=false",
        ),
        *("--learning_rate=3e-5", "--question_temperature=0", "--heldout=a b.jsonl"),
    )
    before = parsed(*GIVEN, *changes)
    flagfile = tmp_path / "run.flags"
    flagfile.write_text(before.flags_into_string())
    after = parsed(f"--flagfile={flagfile}")
    assert config_from_flags(after) == config_from_flags(before)
    assert config_from_flags(after).run.heldout == "a b.jsonl"


def test_a_flag_after_the_flagfile_wins(tmp_path):
    flagfile = tmp_path / "run.flags"
    flagfile.write_text("# a comment\n\n--rounds=3\n--demos=5\n")
    config = config_of(f"--flagfile={flagfile}", "--rounds=4")
    assert (config.loop.rounds, config.loop.demos) == (4, 5)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--round=3", "Unknown command line flag 'round'. Did you mean: rounds ?"),
        ("--rounds=three", "flag --rounds=three: "),
        ("--rounds=2.5", "flag --rounds=2.5: "),
        ("--alpha=much", "flag --alpha=much: "),
        ("--baselines=perhaps", "flag --baselines=perhaps: "),
        ("--template=papers", "flag --template=papers: value should be one of <paper|"),
    ],
)
def test_a_misspelt_flag_and_a_value_of_another_type_are_refused(argument, message):
    with pytest.raises(flags.Error) as caught:
        parsed(argument)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--workdir=", "--workdir: must be given"),
        ("--seeds=", "--seeds: must be given"),
        ("--max_slots=-1", "--max_slots=-1: must be 0 or more"),
        (
            "--questions_per_context=0",
            "--questions_per_context=0: must be at least 1",
        ),
        ("--mesh_model=0", "--mesh_model=0: must be at least 1"),
        ("--mesh_data=0", "--mesh_data=0: must be -1 or at least 1"),
        ("--demo_tokens=-1", "--demo_tokens=-1: must be 0 or more"),
        ("--seed=-1", "--seed=-1: must be from 0 to 2^32 - 1"),
        (f"--seed={2**32}", f"--seed={2**32}: must be from 0 to 2^32 - 1"),
        ("--rounds=9", "--rounds=9: must be from 1 to --demos=8"),
        ("--question_top_p=0", "--question_top_p=0.0: must be in (0, 1]"),
        ("--answer_temperature=-1", "--answer_temperature=-1.0: must be >= 0"),
        ("--answer_min_p=2", "--answer_min_p=2.0: must be in [0, 1]"),
        (
            "--question_beams=1",
            "--question_length_penalty=2.0: must be 1 where there are no beams",
        ),
        ("--min_answer_words=-1", "--min_answer_words=-1: must be 0 or more"),
        ("--train_batch=0", "--train_batch=0: must be at least 1"),
        ("--train_row_length=-1", "--train_row_length=-1: must be 0 or more"),
        ("--spike_factor=1", "--spike_factor=1.0: must be 0 or above 1"),
        ("--validation_share=0", "--validation_share=0.0: must be between 0 and 1"),
        ("--train_save_minutes=-1", "--train_save_minutes=-1.0: must be 0 or more"),
        ("--train_save_minutes=nan", "--train_save_minutes=nan: must be 0 or more"),
        ("--train_save_steps=-1", "--train_save_steps=-1: must be 0 or more"),
        ("--train_keep_states=0", "--train_keep_states=0: must be at least 1"),
        ("--early_stop_epochs=-1", "--early_stop_epochs=-1: must be 0 or more"),
        ("--debug_examples=-1", "--debug_examples=-1: must be 0 or more"),
        ("--learning_rate=nan", "--learning_rate=nan: must be above 0"),
        ("--evaluation_tokens=0", "--evaluation_tokens=0: must be at least 1"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_its_flag(argument, message):
    with pytest.raises(InputError) as caught:
        config_of(argument)
    assert str(caught.value).startswith(message)


def test_bf16_masters_of_an_fp32_model_are_refused():
    with pytest.raises(InputError, match="master_dtype=bfloat16: needs `dtype`=bf"):
        config_of("--master_dtype=bfloat16", "--dtype=float32")
    config_of("--master_dtype=bfloat16", "--dtype=bfloat16")


def test_we_ship_flagfiles():
    assert ROOT / "configs" / "quickstart.flags" in FLAGFILES


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_a_flagfile_of_ours_is_valid(path):
    config = config_from_flags(parsed(f"--flagfile={path}"))
    for name in (config.run.seeds, config.run.heldout):
        assert (ROOT / name).is_file()


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_a_flagfile_of_ours_shows_every_value_that_changes_results(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"^--(\w+)=", text, flags=re.MULTILINE)
    assert set(flag_names(operational=False)) - set(named) == set()
    assert len(named) == len(set(named)), "a flag stands twice"


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_a_flagfile_of_ours_says_first_what_it_does_and_on_what(path):
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert first.startswith("# ") and second.startswith("# Hardware: ")
