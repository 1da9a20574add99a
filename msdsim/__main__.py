"""``python -m msdsim``."""

from msdsim.cli import main

if __name__ == "__main__":
    main()
