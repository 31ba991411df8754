"""Truncated backpropagation through time: the loop, the lanes, evaluation, checkpoints."""
