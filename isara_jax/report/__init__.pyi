from .page import write_report as write_report
from .summary import summary_table as summary_table
from .tensorboard import write_tensorboard as write_tensorboard
