"""One file per method: its Spec, its plan and its stage functions.

Specs and plans are read without torch, so a stage function imports what it computes with inside.
"""
