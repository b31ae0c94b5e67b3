"""Messages for the user at the terminal."""

import sys

from tqdm import tqdm


def tell(text: str) -> None:
    """Prints a line on stderr, above the progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


def warn(text: str) -> None:
    """Prints a line on stderr that says which program it comes from, as refusals do."""
    tell(f"dexgrasp: {text}")


def shortened(text: str, length: int = 300) -> str:
    """A text on one line, cut to a length."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
