"""A launcher for a test to kill: `python launching.py FOLDER CLUSTER`."""

import sys
from pathlib import Path

from alpacafarm.spec.cluster import ClusterSpec
from launchers.local import Local


def main(folder: str, cluster: str) -> None:
    launcher = Local(ClusterSpec.model_validate_json(cluster), 2, worker="launched")
    try:
        launcher.wait([launcher.submit(Path(folder), [])])
    except KeyboardInterrupt:
        sys.exit(130)


main(*sys.argv[1:])
