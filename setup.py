"""What setup.cfg cannot say: parts in C that are left out where there is no compiler."""

from setuptools import Extension, setup

PARTS = {"tp_ext.tokens._kernel": "tp_ext/tokens/_kernel.c", "tp_ext.corpus._objects": "tp_ext/corpus/_objects.c"}

setup(ext_modules=[Extension(name, [source], optional=True) for name, source in PARTS.items()])
