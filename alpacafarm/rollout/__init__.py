"""Models over many rows: sampling, scoring, log-probabilities."""
