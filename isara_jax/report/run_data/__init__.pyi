from .read import read_run as read_run
from .values import (
    Answer as Answer,
    Evaluation as Evaluation,
    MetricValue as MetricValue,
    Round as Round,
    RunData as RunData,
    Sample as Sample,
    Stage as Stage,
    TrainingStep as TrainingStep,
)
