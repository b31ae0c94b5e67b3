"""Messages for the user at the terminal."""

import sys

from tqdm import tqdm


def warn(text: str) -> None:
    """Prints a line on stderr, above the progress bar if there is one."""
    tqdm.write(f"dexgrasp: {text}", file=sys.stderr)


def shortened(text: str, length: int = 300) -> str:
    """A text on one line, cut to a length."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
