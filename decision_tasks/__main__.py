"""`python -m decision_tasks --task cubic --method taskmet` trains 10 data sets × 5 seeds of a task."""

import sys

from decision_tasks.command import main

if __name__ == "__main__":
    sys.exit(main())
