"""``python -m fastdl`` is the command ``fastdl``."""

import sys

from fastdl.cli import main

if __name__ == "__main__":
    sys.exit(main())
