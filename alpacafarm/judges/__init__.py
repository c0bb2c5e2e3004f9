"""Judges: each compares pairs of answers behind `ports.Judge`."""
