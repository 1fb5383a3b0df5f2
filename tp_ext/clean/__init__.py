"""Documents of the web to documents worth learning from, with a reason for all that goes."""
