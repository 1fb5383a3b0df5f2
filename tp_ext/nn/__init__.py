"""Layers: numbers in and out; they know no configuration, no registry and no process group."""
