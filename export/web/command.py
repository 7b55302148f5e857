"""`ofa serve`: browsers become devices by opening a link; see `docs/serve.md`."""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa.cli.options import existing_run, user_path
from ofa.cli.output import console


def serve(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run that the page shows: its directory, or a recipe with runs/NAME."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other devices of the network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.")] = 8518,
    tls: Annotated[
        bool, typer.Option("--tls", help="https, with a certificate that is made for this computer's address.")
    ] = False,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=user_path, help="A certificate of your own for https, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", parser=user_path, help="Its private key, PEM.")] = None,
) -> None:
    """Let phones and other browsers measure, and show a run while it goes on.

    Shows a link that makes the browser which opens it a device; with RUN, that shows the run as well.
    Leave it running, and use the device `browser` in another terminal:
    `ofa specialize RUN --name phone --device browser`.
    """
    from export.web.certificate import certificate
    from export.web.running import Running, announce, new_key, withdraw
    from export.web.server import ServeConfig
    from export.web.server import serve as start

    address = _address(host)
    if tls and cert is None:
        cert, key = certificate(address)
    scheme = "http" if cert is None else "https"
    links: list[str] = []

    def show(token: str) -> None:
        if links:
            console.print("A browser came in. The link for the next one:")
        links.append(f"{scheme}://{f'[{address}]' if ':' in address else address}:{server.port}/#{token}")
        _show_link(links[-1])

    server_key = new_key()
    options: dict[str, Any] = {"host": host, "port": port, "cert": cert, "tls_key": key, "on_token": show}
    server = start(ServeConfig(key=server_key, **options, **_shown(run)))
    local = "127.0.0.1" if ip_address(address).is_loopback or host == "0.0.0.0" else address
    running = Running(f"{scheme}://{local}:{server.port}", server_key, None if cert is None else str(cert))
    announce(running)
    what = "in the browser that shall be measured" if run is None else "to see the run, and to measure the device"
    console.print(f"Open this link {what}. It works once. Ctrl-C ends.", soft_wrap=True)
    if ip_address(address).is_loopback:
        console.print("Only this computer can open it; --host 0.0.0.0 lets phones in.", soft_wrap=True)
    elif scheme == "http":
        console.print(
            "Without --tls, others in the network can read along, and browsers keep their clocks coarse.",
            soft_wrap=True,
        )
    show(server.access.token)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with server, suppress(KeyboardInterrupt):
            server.serve_forever()
    finally:
        withdraw(running)


def _shown(name: str | None) -> dict[str, Any]:
    """Return what the server needs to show a run."""
    if name is None:
        return {}
    from plotly.offline import get_plotlyjs

    from ofa.report.live import live

    run = existing_run(name)
    return {"live": partial(live, run), "report": run.path("report.html"), "script": get_plotlyjs().encode()}


def _show_link(link: str) -> None:
    console.print(f"\n  {link}\n", soft_wrap=True, highlight=False)
    with suppress(ImportError):
        import segno

        if sys.stdout.isatty():
            segno.make(link, error="l").terminal(compact=True)


def _address(host: str) -> str:
    """Return the address at which other devices reach this computer, if it listens on all; else the host's."""
    try:
        if host not in ("0.0.0.0", "::"):
            return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]  # type: ignore[return-value]  # text
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
            outward.connect(("192.0.2.1", 9))  # nothing is sent
            return str(outward.getsockname()[0])
    except OSError:
        return "127.0.0.1" if host in ("0.0.0.0", "::") else host
