"""`python -m dexgrasp_sim.worker`: see `worker.process`."""

import sys

from dexgrasp_sim.worker.process import main

if __name__ == "__main__":
    sys.exit(main())
