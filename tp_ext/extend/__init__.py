"""A vocabulary, and the model that uses it, extended in one transaction."""
