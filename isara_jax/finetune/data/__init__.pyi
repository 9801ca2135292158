from .batches import (
    Batch as Batch,
    Plan as Plan,
    Row as Row,
    TrainingExample as TrainingExample,
    abstract_batch as abstract_batch,
    collate as collate,
    fitting as fitting,
)
from .packing import packed_plan as packed_plan
from .plan import (
    hold_out as hold_out,
    make_plan as make_plan,
    steps_an_epoch as steps_an_epoch,
)
from .preview import first_rows as first_rows
