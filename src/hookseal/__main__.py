"""`python -m hookseal` is the command `hookseal`."""

from hookseal.cli.main import main

if __name__ == "__main__":
    main()
