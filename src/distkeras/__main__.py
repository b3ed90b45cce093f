"""`python -m distkeras`: the command of this package."""

from distkeras.command import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
