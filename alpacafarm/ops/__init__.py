"""Tensor arithmetic of the methods: pure functions, torch only."""
