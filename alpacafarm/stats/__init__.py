"""Arithmetic on rows and numbers: pure functions, standard library only."""
