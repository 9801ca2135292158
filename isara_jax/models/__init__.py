"""The models as immutable NNX values, and their ways in and out of files."""
