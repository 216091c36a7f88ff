"""`python -m mixerlang`."""

from .cli import main

main()
