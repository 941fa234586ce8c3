"""``python -m deqir``."""

from deqir.cli import main

if __name__ == "__main__":
    main()
