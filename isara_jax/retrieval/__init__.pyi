from .config import RetrievalConfig as RetrievalConfig
from .embed import Embedder as Embedder, load_embedder as load_embedder
from .search import (
    IndexMethod as IndexMethod,
    Neighbours as Neighbours,
    build_index as build_index,
)
