"""ROUGE-L, by which the filter and the evaluation compare two texts."""

from functools import cache
from typing import Any


def rouge_l(text: str, reference: str) -> float:
    """Returns F1 of the longest common subsequence of words, 0 to 1.

    F1 = 2PR / (P + R), P = LCS / words of the text, R = LCS / words of the reference;
    words are runs of a-z and 0-9 in lower case, not stemmed.
    """
    return float(_scorer().score(reference, text)["rougeL"].fmeasure)


@cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
