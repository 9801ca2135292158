"""The sampling engine: token ids in, token ids and log-probabilities out."""
