from .family import LLAMA as LLAMA
from .model import Llama as Llama, LlamaConfig as LlamaConfig
