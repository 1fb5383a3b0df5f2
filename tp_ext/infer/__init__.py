"""Use a trained model from Python: `from tp_ext.infer import load`."""

from tp_ext.infer.generate import LanguageModel, load

__all__ = ["LanguageModel", "load"]
