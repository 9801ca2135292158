from .family import OPT as OPT
from .model import Opt as Opt, OptConfig as OptConfig
