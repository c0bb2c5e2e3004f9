"""One file per preference source: its Spec, its plan and its stage functions."""
