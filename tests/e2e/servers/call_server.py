"""A CallServer of harness/ledger.py as a process of its own, on a port that it chooses."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from harness.ledger import CallServer  # noqa: E402
from harness.server import RawServer  # noqa: E402

CallServer(RawServer())
threading.Event().wait()
