from .read import gather as gather
from .values import (
    Answer as Answer,
    Evaluation as Evaluation,
    Metric as Metric,
    Round as Round,
    Run as Run,
    Sample as Sample,
    Stage as Stage,
    Step as Step,
)
