"""Training (section 5): the step, the loop over steps, and a run from its claim to its result."""
