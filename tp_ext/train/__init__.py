"""Training from a recipe on DeepSpeed."""
