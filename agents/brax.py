"""`python -m agents.brax --env halfcheetah --distractors 8 --method taskmet` trains an agent on an environment of brax."""

import sys

from agents.command import main

if __name__ == "__main__":
    sys.exit(main(suite="brax"))
