"""The demo data: CDNOW purchases by P. S. Fader and B. G. S. Hardie. Origin, columns and licence: CITATION.md."""

from __future__ import annotations

from pathlib import Path

DEMO_FILE = Path(__file__).with_name("cdnow_sample.txt.xz")
"""6,919 purchases of 2,357 customers, $244,091.94."""
