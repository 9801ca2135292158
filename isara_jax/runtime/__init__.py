"""What the machine gives: devices, weights' places, tokenizers, checkpoints."""
