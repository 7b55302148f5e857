"""The command line. Results go to standard output, progress and errors to standard error."""

from ofa.cli.app import main as main
