"""`python -m lessonlib.cli` is `lesson`."""

import sys

from lessonlib.cli import main

sys.exit(main())
