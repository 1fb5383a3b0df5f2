"""Continue the pretraining of large language models on Chinese text; TencentPretrain-compatible."""

__version__ = "0.1.0"
