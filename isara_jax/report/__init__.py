"""What a run shows: the page, the summary table and the TensorBoard scalars."""
