"""What a run's folder gets from its assembly: the seeds, and the engine's metrics."""

from isara_jax.engine.metrics.throughput import EngineMetrics
from isara_jax.examples import Example, Pool
from isara_jax.pipeline import write_metrics, write_seeds
from isara_jax.run.workdir import Workdir
from isara_jax.runtime.files.records import Records
from isara_jax.runtime.mesh import make_mesh


def test_the_seeds_are_written_with_their_ids(tmp_path):
    workdir = Workdir(tmp_path)
    example = Example(question="Is it?", answer="It is.", origin="seed-0000")
    write_seeds(workdir, Pool(round_index=0, examples=(example,)))
    assert Records(workdir.seeds).read() == [
        {"id": "seed-0000", "question": "Is it?", "answer": "It is."}
    ]


def test_a_stage_appends_its_engine_metrics(tmp_path):
    workdir, mesh = Workdir(tmp_path), make_mesh(data=1, model=1)
    for stage in ("round 1: questions", "round 1: answers"):
        write_metrics(workdir, stage, EngineMetrics(), dtype="float32", mesh=mesh)
    stages = [line["stage"] for line in workdir.engine.read()]
    assert stages == ["round 1: questions", "round 1: answers"]
