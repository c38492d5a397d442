"""`python -m mlopsdeploy` is the `mlopsdeploy` command."""

from mlopsdeploy.cli import main

if __name__ == "__main__":
    main()
