"""`python -m bqbuild` is `bqbuild`."""

from bqbuild.cli.main import main

if __name__ == "__main__":
    main()
