"""`python -m lampo`."""

from .cli import main

main()
