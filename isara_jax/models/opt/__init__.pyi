from .model import Opt as Opt, OptConfig as OptConfig
