"""The evidence: what a model says about questions that it was not trained on."""
