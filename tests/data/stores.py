"""Datasets of given documents, without a tokenizer."""

import numpy as np

from tp_ext.data.store import KIND, Store, StoreWriter
from tp_ext.output import whole_folder

BOS, EOS = 1, 2


def store_of(folder, lengths, vocab_size=500, seed=0):
    """Documents of random ids with bos and eos, `lengths` tokens in all."""
    from tp_ext.errors import DatasetError

    lengths = np.asarray(lengths, dtype=np.int64)
    ids = np.random.default_rng(seed).integers(3, vocab_size, lengths.sum(), dtype=np.uint32)
    ends = np.cumsum(lengths)
    ids[ends[lengths > 0] - 1] = EOS
    ids[(ends - lengths)[lengths > 0]] = BOS
    with whole_folder(folder, KIND, DatasetError) as part:
        writer = StoreWriter(part, vocab_size)
        writer.append(ids, lengths, np.arange(len(lengths)))
        writer.finish({"text_bytes": 1, "seq_length": 64, "tokenizer_sha256": "0" * 64,
                       "sources": [{"path": "made up", "documents": len(lengths)}]})  # fmt: skip
    return Store(folder)


def documents_of(store):
    """Its documents as lists of ids."""
    return [store.tokens[a:b].tolist() for a, b in zip(store.documents[:-1], store.documents[1:], strict=True)]
