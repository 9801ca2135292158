import struct
from collections import defaultdict

import pytest
from tensorboardX.proto.event_pb2 import Event

from isara_jax.report.tensorboard import write_tensorboard


def scalars(folder):
    """Reads {curve: {tag: [(step, value)]}} from TFRecord files."""
    found = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.rglob("events*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                point = (event.step, pytest.approx(value.simple_value))
                found[path.parent.name][value.tag].append(point)
    return found


def test_curves_hold_what_the_records_hold(finished):
    curves = scalars(write_tensorboard(finished.workdir))
    assert set(curves) == {"isara", "sft", "round_01", "round_02"}
    assert curves["round_02"]["train/loss"] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert curves["sft"]["train/tokens"] == [(0, 100), (1, 100), (2, 100)]
    assert curves["sft"]["train/update_ratio"] == [(n, 1e-3) for n in range(3)]
    assert curves["sft"]["train/validation_loss"] == [(2, 2.5)]
    assert curves["isara"]["evaluation/nll"] == [(0, 3.0), (1, 2.5), (2, 2.3)]
    assert curves["sft"]["evaluation/nll"] == [(0, 2.4)]


def test_writing_again_leaves_nothing_of_before(finished):
    folder = write_tensorboard(finished.workdir)
    (event_file,) = (folder / "isara").iterdir()
    event_file.rename(event_file.with_name("events.of.before"))
    curves = scalars(write_tensorboard(finished.workdir))
    assert len(curves["isara"]["evaluation/nll"]) == 3


def test_a_run_without_records_has_no_curves(begun):
    assert not scalars(write_tensorboard(begun.workdir))
