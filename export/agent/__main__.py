"""`python -m export.agent` starts an agent where PyTorch is not installed; `ofa agent` is the same."""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from export.agent.config import AgentConfig, Limits, read_token
from export.agent.server import serve
from ofa.core.errors import DeviceError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DeviceError(f"{message}; `ofa agent --help` lists the options")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an agent until Ctrl-C or SIGTERM, and return the exit code: 2 for a wrong option."""
    parser = _Parser("ofa agent", description="Run ONNX models for `ofa profile`.", allow_abbrev=False)
    parser.add_argument("--token-file", type=Path, required=True, help="file with the token that clients must send")
    for name, default, meaning in (
        ("host", AgentConfig.host, "address to listen on; 0.0.0.0 for all"),
        ("port", AgentConfig.port, "port to listen on; 0 for any free one"),
        ("threads", Limits.threads, "threads of one run"),
        ("max-mib", Limits.max_mib, "size of all loaded models"),
        ("max-models", Limits.max_models, "number of loaded models"),
        ("max-seconds", Limits.max_seconds, "time of one request"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} (%(default)s)")
    parser.add_argument("--cert", type=Path, help="certificate for TLS, PEM")
    parser.add_argument("--key", type=Path, help="its private key, PEM")
    try:
        options = vars(parser.parse_args(arguments))
        token = read_token(options.pop("token_file"))
        limits = Limits(**{field.name: options.pop(field.name) for field in fields(Limits)})
        server = serve(AgentConfig(token=token, limits=limits, **options))
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    scheme = "http" if options["cert"] is None else "https"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the worker too, whatever it computes
    print(f"the agent listens on {scheme}://{options['host']}:{server.server_address[1]}", flush=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
