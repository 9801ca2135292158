"""A run that is killed at random moments, and one that is asked to stop."""

import random
import shlex
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

import pytest
from tiny_run import ROOT, TinyRun, one_device

pytestmark = pytest.mark.slow

KILLS = 10
COMPARED = (
    *("questions.jsonl", "answers.jsonl", "kept.jsonl", "rejected.jsonl"),
    *("metrics.jsonl", "heldout_answers.jsonl", "evaluation.json", "round.json"),
    *("model.safetensors", "train.parquet"),
)


@dataclass
class Watched:
    """A process whose lines on stderr are read as they come, each with its time."""

    process: subprocess.Popen
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self):
        self.began, self.ended = time.monotonic(), False
        self.more = threading.Condition()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.more:
                self.lines.append((time.monotonic() - self.began, line.rstrip("\n")))
                self.more.notify()
        with self.more:
            self.ended = True
            self.more.notify()

    def stages(self):
        """Returns when each stage was first heard of, by its name, in their order."""
        found = {}
        for seconds, line in list(self.lines):
            found.setdefault(line.rpartition(": ")[0], seconds)
        return found

    def wait_for(self, names, *, seconds=None):
        """Waits until one of the stages is heard of; returns it, or None at the end."""
        with self.more:
            self.more.wait_for(
                lambda: self.ended or set(names) & self.stages().keys(), seconds
            )
        return next((name for name in self.stages() if name in names), None)

    def end(self):
        """Waits for the end; returns the code, and the lines of stderr and stdout."""
        with self.process:
            self.reader.join()
            self.seconds = time.monotonic() - self.began
            out = self.process.stdout.read()
        return self.process.returncode, [line for _, line in self.lines], out


def copy_of(run, path):
    """The same run with a working folder of its own."""

    @dataclass(frozen=True)
    class Copy(TinyRun):
        @property
        def workdir(self):
            return path

    return Copy(run.path)


def results(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name in COMPARED
    }


def leftovers(folder):
    return [
        path
        for mark in (".*.partial", "*orbax-checkpoint-tmp*", "train_state_*")
        for path in folder.rglob(mark)
    ]


@pytest.fixture(scope="module")
def alone(finished, tmp_path_factory):
    """A second run that is left alone, now that all is compiled."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    watched = Watched(copy_of(finished.run, folder).start())
    code, _, _ = watched.end()
    assert code == 0
    assert results(folder) == results(finished.run.workdir)
    return watched


def random_moments(alone):
    """Draws moments of a run that is left alone: a stage and a time within it.

    The last stage has no next one whose beginning tells that it is over, so of its time
    only a part is drawn from: a run may be quicker than the one that was left alone.
    """
    names, began = list(alone.stages()), list(alone.stages().values())
    chance = random.Random(6785)
    for place in sorted(chance.sample(range(len(names)), KILLS)):
        ended = [*began, began[-1] + (alone.seconds - began[-1]) / 3][place + 1]
        yield names[place:], chance.uniform(0, ended - began[place])


def test_a_run_killed_at_random_moments_ends_as_one_left_alone(
    finished, alone, tmp_path
):
    run, landed = copy_of(finished.run, tmp_path / "run"), []
    for names, seconds in random_moments(alone):
        watched = Watched(run.start())
        if watched.wait_for(names) == names[0]:
            watched.wait_for(names[1:], seconds=seconds)
        watched.process.send_signal(signal.SIGKILL)
        code, lines, _ = watched.end()
        print(f"killed {seconds:.2f} s into {names[0]!r}: {lines[-1]!r}, {code}")
        landed += [lines[-1].rpartition(": ")[0]] * (code == -signal.SIGKILL)
    assert len(landed) == KILLS
    assert len(set(landed)) >= 6, "the kills are spread over the stages"
    code, _, out = Watched(run.start()).end()
    assert code == 0
    assert results(run.workdir) == results(finished.run.workdir)
    assert leftovers(run.workdir) == []
    before, after = str(finished.run.workdir), str(run.workdir)
    assert out == finished.process.stdout.replace(before, after)


def test_a_run_that_is_asked_to_stop_says_how_to_go_on(finished, alone, tmp_path):
    run = copy_of(finished.run, tmp_path / "run")
    command = run.command()
    for stage in ("round 1: questions", "round 1: finetuning"):
        watched = Watched(process(command))
        names = list(alone.stages())
        assert watched.wait_for(names[names.index(stage) :]) == stage
        watched.process.send_signal(signal.SIGTERM)
        code, lines, _ = watched.end()
        assert code == 1
        said, _, again = lines[-1].partition(" To go on: ")
        assert said == "Stopped; all work so far is kept."
        assert not (run.workdir / "model").exists()
        command = shlex.split(again)
    assert Watched(process(command)).end()[0] == 0
    assert results(run.workdir) == results(finished.run.workdir)
    assert leftovers(run.workdir) == []


def process(command):
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=one_device(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
