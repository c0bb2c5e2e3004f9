"""From a spec to a plan, from a plan to artifacts."""
