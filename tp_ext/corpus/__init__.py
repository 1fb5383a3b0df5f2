"""Raw text to documents."""
