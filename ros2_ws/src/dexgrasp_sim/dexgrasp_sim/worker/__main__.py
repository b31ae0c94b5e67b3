"""A simulator worker: `python -m dexgrasp_sim.worker`.

On the learner's host: `--run-id ID --index K`; the learner starts it, perhaps with another
interpreter, or a person does. On another host: `--learner HOST:PORT --index K --secret-file FILE`;
a person or a job scheduler starts it, and the run's config has `simulators.transport: remote`.
FILE is a copy of `secret` in the run folder, mode 0600. In place of it, DEXGRASP_SECRET_FILE may
name such a file, or DEXGRASP_SECRET hold the secret.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dexgrasp_sim.arguments import LONGEST_S, Parser, number, whole
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.stop_signals import take_default_signals
from dexgrasp_sim.transport.channel import ChannelClosed
from dexgrasp_sim.transport.protocol import ProtocolError
from dexgrasp_sim.transport.secret import find_secret
from dexgrasp_sim.transport.worker_link import SharedWorkerLink, StreamWorkerLink
from dexgrasp_sim.worker.process import serve
from dexgrasp_sim.worker.retry import run_again


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the worker; returns the exit code."""
    parser = Parser(
        prog="dexgrasp_sim.worker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--run-id", help="id of the learner's run on this host")
    where.add_argument("--learner", metavar="HOST:PORT", help="where a learner listens")
    parser.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help="copy of `secret` in the learner's run folder, readable by you alone",
    )
    parser.add_argument("--index", required=True, type=whole(0), help="worker index, from 0")
    parser.add_argument(
        "--wait-s",
        type=number(0.0, LONGEST_S),
        default=60.0,
        help="how long to wait for HOST:PORT to listen (default 60 s)",
    )
    parser.add_argument(
        "--retry",
        type=whole(0),
        default=0,
        metavar="N",
        help="start again up to N times unless the learner has stopped the worker",
    )
    options = parser.parse_args(arguments)
    if options.run_id is not None and options.secret_file is not None:
        parser.error("--secret-file is for --learner; on this host the run's files have an owner")
    take_default_signals()
    if options.retry > 0:
        given = sys.argv[1:] if arguments is None else list(arguments)
        return run_again(given, options.retry)
    link = None
    try:
        if options.run_id is not None:
            link = SharedWorkerLink(options.run_id, options.index)
        else:
            secret = find_secret(options.secret_file)
            link = StreamWorkerLink(options.learner, options.index, options.wait_s, secret)
        serve(link)
    except (ConfigError, ProtocolError) as error:
        print(f"dexgrasp worker: {error}", file=sys.stderr)
        return 2
    except ChannelClosed as error:
        print(f"dexgrasp worker: {error}", file=sys.stderr)
        if link is not None:
            link.leave()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # freeing the libraries takes a second or hangs, while the learner waits
