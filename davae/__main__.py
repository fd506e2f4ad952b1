"""`python -m davae`."""

import sys

try:
    from davae.pipeline.cli import main
except KeyboardInterrupt:  # before `main` could answer it
    print("davae: interrupted", file=sys.stderr)
    sys.exit(130)
except ModuleNotFoundError as error:
    if (error.name or "davae").partition(".")[0] in ("davae", "synthhand"):
        raise
    sys.exit(
        f"davae: {error.name} is not installed for {sys.executable}; run `make install` and then "
        "`.venv/bin/python -m davae`, or `pip install -e .`"
    )

if __name__ == "__main__":
    main()
