"""`python -m cluster.cli`: the command line where the console script `pixr` is not on the path."""

from cluster.cli.main import main

if __name__ == "__main__":
    main()
