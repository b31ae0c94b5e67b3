"""Messages for the user at the terminal."""

import sys

from tqdm import tqdm


def warn(text: str) -> None:
    """Prints a line on stderr, above the progress bar if there is one."""
    tqdm.write(f"dexgrasp: {text}", file=sys.stderr)
