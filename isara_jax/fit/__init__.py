"""Whether a run fits: its programs compiled ahead of time, for machines of any kind."""
