"""One file per evaluation: its Spec, its plan and its stage functions."""
