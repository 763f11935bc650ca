"""`python -m agents.playground --env CheetahRun --distractors 8` trains an agent on an environment of MuJoCo Playground."""

import sys

from agents.command import main

if __name__ == "__main__":
    sys.exit(main(suite="playground"))
