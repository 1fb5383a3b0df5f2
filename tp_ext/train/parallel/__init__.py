"""Tensor and pipeline parallelism, applied to a model from outside."""
