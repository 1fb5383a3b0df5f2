"""Convert a model between formats; the source's format, family, sizes, degree and type are found in its files.

    python scripts/convert_weights.py --input IN --output OUT --to huggingface
    python scripts/convert_weights.py --input IN --output OUT --to 3d --tensor 4 --pipeline 2
    python scripts/convert_weights.py --input ADAPTER --base MODEL --output OUT --to peft|lora|(a format: merged)
"""

import argparse
from pathlib import Path

from tp_ext.checkpoint.adapter import Adapter
from tp_ext.checkpoint.adapters import ADAPTERS, convert_adapter, is_adapter, merged, open_adapter
from tp_ext.checkpoint.convert import OPTIONS, Conversion, check_apart, convert_source
from tp_ext.checkpoint.formats import FORMATS, open_model
from tp_ext.checkpoint.source import Degree, Source
from tp_ext.errors import CheckpointError, run_command
from tp_ext.infer.compare import PROOFS
from tp_ext.models import families


def main() -> None:
    """Parse the command line, convert, print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a model's folder or file, in any format")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--to", choices=[*(each.name for each in FORMATS if each.plan), *ADAPTERS], required=True)
    parser.add_argument("--base", type=Path, help="the model that an adapter (LoRA, peft) belongs to")
    parser.add_argument("--from", dest="expected", choices=FORMATS.names(), help="refuse an input of another format")
    parser.add_argument("--tensor", type=int, default=1, help="degree of tensor parallelism to write")
    parser.add_argument("--pipeline", type=int, default=1, help="pipeline stages to write (3d)")
    parser.add_argument("--pad_vocab", action="store_true", help="add rows until the vocabulary divides by --tensor")
    parser.add_argument("--dtype", choices=list(OPTIONS), help="type of the weights; as they are when not given")
    parser.add_argument("--config_path", type=Path, help="model JSON, for weights that have no config.json beside them")
    parser.add_argument("--verify", choices=list(PROOFS), default="auto",
                        help="beside the hash of every tensor, compare logits: always, never, or below 1B parameters")
    args = parser.parse_args()
    source = _open(args)
    if isinstance(source, Adapter) and args.to in ADAPTERS:
        check_apart(args.output, args.input, args.base)
        convert_adapter(source, open_model(args.base, families, args.config_path), args.output, args.to)
        print(f"wrote {args.output}: {source.told}, to {args.to}; read back and equal")
        return
    if args.to in ADAPTERS:
        raise CheckpointError(f"{args.input}: is a whole model; {args.to} is a form of adapters")
    asked = Conversion(
        to=args.to, dtype=args.dtype, degree=Degree(args.tensor, args.pipeline), pad_vocab=args.pad_vocab,
        expected=args.expected, config_path=args.config_path,
    )  # fmt: skip
    if isinstance(source, Adapter):
        source = merged(open_model(args.base, families, args.config_path), source)
    written = convert_source(source, args.output, asked, families, PROOFS[args.verify])
    print(
        f"wrote {args.output}: {written.family.name}, {len(written.shapes)} tensors, {str(written.dtype)[6:]}, from "
        f"{source.format} to {args.to}; read back and equal; {args.output / 'conversion.json'} has the hashes"
    )


def _open(args: argparse.Namespace) -> Source | Adapter:
    """The model that is to be converted, or an adapter with its base."""
    if args.base is None and is_adapter(args.input):
        raise CheckpointError(f"{args.input}: is an adapter; name the model it belongs to with --base")
    if args.base is None:
        return open_model(args.input, families, args.config_path, args.expected)
    return open_adapter(args.input, open_model(args.base, families, args.config_path))


if __name__ == "__main__":
    run_command(main)
