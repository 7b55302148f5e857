"""`python -m ofa`, as torchrun starts it."""

import os
import sys

if __name__ == "__main__":
    # `python -m` looks for modules in the working directory first; a user's own export.py there is not meant.
    sys.path[:] = [path for path in sys.path if os.path.realpath(path or ".") != os.path.realpath(".")]
    from ofa.cli import main

    main()
