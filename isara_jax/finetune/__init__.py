"""Supervised finetuning: M_t from M_{t-1}, the seeds and what the round kept."""
