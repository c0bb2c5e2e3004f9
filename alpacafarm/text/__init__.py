"""Strings and token ids. No model."""
