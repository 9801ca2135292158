from .family import LLAMA as LLAMA
from .gguf import load_gguf_config as load_gguf_config, open_gguf as open_gguf
from .model import Llama as Llama, LlamaConfig as LlamaConfig
