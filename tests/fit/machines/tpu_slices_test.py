"""Slices by their names, and the devices that are compiled for."""

import importlib.util
import re

import pytest

from isara_jax.errors import EnvironmentFailure, InputError
from isara_jax.fit.machines import tpu_slices as slices
from isara_jax.fit.machines.tpu_slices import CHIPS, Slice, slice_named
from isara_jax.runtime.mesh import make_mesh

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not for this platform"
)


@pytest.mark.parametrize(
    ("name", "kind", "chips", "count"),
    [
        ("v5e-16", "v5e", 16, 1),
        ("v6e-8", "v6e", 8, 1),
        ("v5p-8", "v5p", 4, 1),
        ("v4-8", "v4", 4, 1),
        ("tpu7x-512", "tpu7x", 256, 1),
        ("2xv5e-256", "v5e", 256, 2),
    ],
)
def test_a_name_counts_chips_or_cores(name, kind, chips, count):
    found = slice_named(name)
    assert found == Slice(kind=kind, chips=chips, count=count)
    assert found.name == name


@pytest.mark.parametrize(
    "name", ["v5e-3", "v5p-9", "v5p-4", "v9-8", "v5e", "0xv5e-4", "65xv5e-4", "v5e-512"]
)
def test_an_unknown_slice_is_refused_with_the_known_ones(name):
    known = r"v4-8, .*; v5e-1, v5e-4, .*; v5p-8, .*; v6e-1, .*; tpu7x-8, .*tpu7x-512"
    with pytest.raises(InputError, match=rf"slice={re.escape(name)}: .*{known}"):
        slice_named(name)


def test_larger_slices_are_of_the_same_kind_and_count():
    names = [larger.name for larger in slice_named("2xv5p-128").larger()]
    assert names == ["2xv5p-256", "2xv5p-512"]


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "devices", "kind"),
    [
        ("v4-8", 4, "TPU v4"),
        ("v5e-16", 16, "TPU v5 lite"),
        ("v5p-8", 4, "TPU v5"),
        ("v6e-8", 8, "TPU v6 lite"),
        ("tpu7x-8", 8, "TPU7x"),
        ("2xv5e-4", 8, "TPU v5 lite"),
    ],
)
def test_libtpu_gives_the_devices_of_a_slice(name, devices, kind):
    found = slice_named(name).devices()
    assert len(found) == devices
    assert {device.device_kind for device in found} == {kind}
    assert {device.platform for device in found} == {"tpu"}


@needs_libtpu
def test_libtpu_knows_how_every_slice_is_wired():
    for kind, chip in CHIPS.items():
        for chips in chip.topologies:
            found = Slice(kind=kind, chips=chips).devices()
            assert len(found) == chips * chip.devices


@needs_libtpu
def test_slices_lie_along_the_data_axis():
    devices = slice_named("2xv5e-4").devices()
    rows = make_mesh(data=-1, model=2, devices=devices).devices
    assert [{device.slice_index for device in row} for row in rows] == [
        *({0}, {0}),
        *({1}, {1}),
    ]
    with pytest.raises(InputError, match="mesh_model=8: 2 slices of 4 devices each"):
        make_mesh(data=1, model=8, devices=devices)


def test_without_libtpu_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(slices, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match="the slice v5e-4 needs libtpu"):
        slice_named("v5e-4").devices()
