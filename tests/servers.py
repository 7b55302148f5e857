"""Servers that answer in a thread of the process that tests."""

import threading
from contextlib import contextmanager


@contextmanager
def answering(server):
    """Let a server answer requests until the end; gives its address."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
