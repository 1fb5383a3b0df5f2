"""Weights on disk: their names elsewhere, strict reading, whole writing, conversion."""
