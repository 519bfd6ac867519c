"""Generator of docs/reference/ from the code and from the newest benchmark results.

    python -m tools.reference
    python -m tools.reference --check

With --check nothing is written, and the exit status is 1 if a page is stale.
"""

import argparse
import sys
from collections.abc import Sequence

from tools.reference.pages import ROOT, render_pages


def main(argv: Sequence[str] | None = None) -> int:
    """Write all pages, or check them; return the exit status."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="write nothing, fail if a page is stale")
    options = arguments.parse_args(argv)
    stale = []
    for name, text in render_pages().items():
        path = ROOT / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not options.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if stale and options.check:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `make reference`\n")
    return int(bool(stale) and options.check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
