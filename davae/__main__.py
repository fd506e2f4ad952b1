"""`python -m davae`."""

from davae.cli import main

if __name__ == "__main__":
    main()
