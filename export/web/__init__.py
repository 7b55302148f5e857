"""The web server of `ofa serve`, by which a browser becomes a device; see `docs/serve.md`. Free of torch."""
