"""`python -m export.agent` starts the agent where PyTorch is not installed."""

import sys

from export.agent.server import main

if __name__ == "__main__":
    sys.exit(main())
