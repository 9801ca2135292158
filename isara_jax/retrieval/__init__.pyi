from .config import RetrievalConfig as RetrievalConfig
from .retriever import Retriever as Retriever, load_retriever as load_retriever
