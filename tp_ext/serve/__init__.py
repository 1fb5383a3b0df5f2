"""Looking at models without exporting them: a completion server and a page over it."""
