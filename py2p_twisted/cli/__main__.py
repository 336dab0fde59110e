"""``python -m py2p_twisted.cli``, where the script ``chordctl`` is not on the path."""

from __future__ import annotations

import sys

from .main import main

sys.exit(main())
