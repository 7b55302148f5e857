"""`python -m ofa`, as torchrun starts it."""

from ofa.cli import main

if __name__ == "__main__":
    main()
