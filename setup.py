"""What setup.cfg cannot say: a part in C that is left out where there is no compiler."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("tp_ext.tokens._kernel", ["tp_ext/tokens/_kernel.c"], optional=True)])
