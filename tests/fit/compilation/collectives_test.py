"""What devices exchange, read out of texts written by hand and by the compiler."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from isara_jax.fit.compilation.collectives import collective_bytes
from isara_jax.runtime.mesh import make_mesh, sharding_for

# As XLA writes it for TPU: layouts with tiles, a loop without its trips, one that goes
# by two, and a gathering that is spread over three fusions.
BY_HAND = """HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%start (p: bf16[2,8]) -> bf16[16,8] {
  %p = bf16[2,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[16,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=7, \
replica_groups=mesh['a'=8,'b'=1] {'a'}, dimensions={0}
}

%finish (p.1: bf16[2,8]) -> bf16[16,8] {
  %p.1 = bf16[2,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[16,8]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=7, \
replica_groups=mesh['a'=8,'b'=1] {'a'}, dimensions={0}
}

%by_one (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %x = f32[4]{0:T(128)} get-tuple-element(%s), index=1
  %all-reduce = f32[4]{0:T(128)} all-reduce(%x), channel_id=1, to_apply=%add
  %first = bf16[16,8]{1,0} fusion(%x), kind=kCustom, calls=%start
  %last = bf16[16,8]{1,0} fusion(%x), kind=kCustom, calls=%finish
  ROOT %t = (s32[]{:T(128)}, f32[4]{0:T(128)}) tuple(%next, /*index=1*/%all-reduce)
}

%below_five (s.1: (s32[], f32[4])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  %s.1 = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %five), direction=LT
}

%by_two (s.2: (f32[4], u32[])) -> (f32[4], u32[]) {
  %s.2 = (f32[4]{0:T(128)}, u32[]{:T(128)}) parameter(0)
  %i.2 = u32[]{:T(128)} get-tuple-element(%s.2), index=1
  %two = u32[]{:T(128)} constant(2)
  %next.2 = u32[]{:T(128)} add(%i.2, %two)
  %x.2 = f32[4]{0:T(128)} get-tuple-element(%s.2), index=0
  %go = (f32[4]{0:T(128)}, f32[4]{0:T(128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%x.2), channel_id=9, source_target_pairs={{0,1},{1,0}}
  %come = f32[4]{0:T(128)S(1)} collective-permute-done(%go)
  ROOT %t.2 = (f32[4]{0:T(128)}, u32[]{:T(128)}) tuple(%come, %next.2)
}

%below_eight (s.3: (f32[4], u32[])) -> pred[] {
  %eight = u32[]{:T(128)} constant(8)
  %s.3 = (f32[4]{0:T(128)}, u32[]{:T(128)}) parameter(0)
  %i.3 = u32[]{:T(128)} get-tuple-element(%s.3), index=1
  ROOT %lt.3 = pred[]{:T(512)} compare(%i.3, %eight), direction=LT
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x.9 = f32[4]{0:T(128)} parameter(0)
  %begin = (s32[]{:T(128)}, f32[4]{0:T(128)}) tuple(%x.9)
  %loop = (s32[]{:T(128)}, f32[4]{0:T(128)}) while(%begin), condition=%below_five, \
body=%by_one
  %ring = (f32[4]{0:T(128)}, u32[]{:T(128)}) while(%begin), condition=%below_eight, \
body=%by_two
  ROOT %scatter = f32[2]{0} reduce-scatter(%x.9), replica_groups=[4,2]<=[8], \
dimensions={0}, to_apply=%add
}
"""


def test_loops_channels_and_layouts_of_a_tpu_s_program():
    assert collective_bytes(BY_HAND) == {
        "all-gather": 5 * 16 * 8 * 2,
        "all-reduce": 5 * 4 * 4,
        "collective-permute": 4 * 4 * 4,
        "reduce-scatter": 2 * 4 * 2,
    }


def test_trips_that_are_written_down_hold():
    told = 'body=%by_one, backend_config={"known_trip_count":{"n":"3"}}'
    text = BY_HAND.replace("body=%by_one", told)
    assert collective_bytes(text)["all-reduce"] == 3 * 4 * 4


def test_of_a_text_without_collectives_nothing_is_told():
    assert collective_bytes("") == {}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=4, model=2)


def placed(shape, words, mesh):
    place = sharding_for(words, shape, mesh)
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)


def test_a_scan_that_gathers_its_weights_exchanges_them_a_layer(mesh):
    layers, rows, width = 6, 8, 16

    def run(x, weights):
        def layer(x, weight):
            return jnp.tanh(x @ weight), None

        return jax.lax.scan(layer, x, weights)[0]

    x = placed((rows, width), ("batch", "time"), mesh)
    weights = placed((layers, width, width), ("layers", "embed", "norm"), mesh)
    text = jax.jit(run, out_shardings=x.sharding).lower(x, weights).compile().as_text()
    assert collective_bytes(text) == {"all-gather": layers * width * width * 4}


def test_a_sum_over_all_devices_is_exchanged_once(mesh):
    x = placed((8, 64), ("batch", "norm"), mesh)
    whole = jax.NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(lambda x: x.sum(0), out_shardings=whole).lower(x).compile()
    assert collective_bytes(compiled.as_text()) == {"all-reduce": 64 * 4}
