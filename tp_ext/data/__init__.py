"""Documents to batches whose position is a number; nothing here needs torch."""
