from .heldout import EvaluationConfig as EvaluationConfig, evaluate as evaluate
