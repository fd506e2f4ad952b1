"""`python -m davae`."""

from davae.pipeline.cli import main

if __name__ == "__main__":
    main()
