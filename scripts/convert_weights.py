"""Convert a model between formats; the source's format, family, sizes and type are found in its files.

    python scripts/convert_weights.py --input IN --output OUT --to native|tencentpretrain|huggingface
"""

import argparse
from pathlib import Path

from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.formats import FORMATS, open_model
from tp_ext.errors import CheckpointError, run_command
from tp_ext.models import families


def main() -> None:
    """Parse the command line, convert, print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="model folder, or TencentPretrain's .bin")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--to", choices=FORMATS, required=True)
    parser.add_argument("--from", dest="expected", choices=FORMATS, help="refuse an input of another format")
    parser.add_argument("--dtype", choices=list(DTYPES), help="type of the weights; as they are when not given")
    parser.add_argument("--config_path", type=Path, help="model JSON, for a .bin that has no config.json beside it")
    args = parser.parse_args()
    found = open_model(args.input, families, args.config_path).format
    if args.expected and found != args.expected:
        raise CheckpointError(f"{args.input}: is {found}, not {args.expected}; leave --from out to convert it")
    written = convert(args.input, args.output, args.to, families, args.dtype, args.config_path)
    print(
        f"wrote {args.output}: {written.family.name}, {len(written.shapes)} tensors, {str(written.dtype)[6:]}, from {found} "
        f"to {args.to}; read back and equal"
    )


if __name__ == "__main__":
    run_command(main)
