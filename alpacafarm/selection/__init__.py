"""Which snapshot of a training becomes the policy: never chosen by what the evaluation will measure."""
