"""`python -m launch.gpu`: see `launch.gpu.session`."""

import sys

from launch.gpu.session import main

if __name__ == "__main__":
    sys.exit(main())
