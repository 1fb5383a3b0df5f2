"""Look at models in the browser or through an OpenAI-compatible API, without exporting them; several stand side by side.

    python scripts/serve.py --model outputs/llama_tiny_en/model outputs/llama_tiny_zh/model
"""

import argparse
import os
from pathlib import Path

from tp_ext.checkpoint.tensors import DTYPES
from tp_ext.errors import ConfigError, run_command
from tp_ext.infer import load
from tp_ext.serve.server import Server


def main() -> None:
    """Parse the command line, load the models, serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True, metavar="[NAME=]PATH",
                        help="models in any format; the name is the path when not given")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; others than this machine need a token")
    parser.add_argument("--port", type=int, default=8000, help="0 takes one that is free")
    parser.add_argument("--token", default=os.environ.get("TP_EXT_TOKEN"),
                        help="what callers must send as `Authorization: Bearer TOKEN`; TP_EXT_TOKEN in the environment "
                             "keeps it out of the list of processes")
    parser.add_argument("--dtype", choices=list(DTYPES), help="as the files' when not given")
    parser.add_argument("--device", help="the GPU where there is one, when not given")
    args = parser.parse_args()
    models = {}
    for each in args.model:
        name, path = each.split("=", 1) if "=" in each and not Path(each).exists() else (each, each)
        if name in models:
            raise ConfigError(f"--model: two models are called '{name}'; name them NAME=PATH")
        models[name] = load(path, args.dtype, args.device)
        assert models[name].tokenizer  # raises where there is none
    server = Server(models, args.host, args.port, args.token)
    print(f"serving {', '.join(models)} at {server.url}, API at {server.url}v1 (Ctrl-C ends it)", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    run_command(main)
