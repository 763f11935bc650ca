"""`python -m agents.cartpole --distractors 8` trains a TaskMet agent on CartPole with eight distracting dimensions."""

import sys

from agents.command import main

if __name__ == "__main__":
    sys.exit(main("CartPole-v1"))
