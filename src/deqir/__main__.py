"""``python -m deqir``."""

from deqir.entry import main

if __name__ == "__main__":
    main()
