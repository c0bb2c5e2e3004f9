"""The original's Python API for preferences: `from alpacafarm import PairwiseAutoAnnotator`."""
