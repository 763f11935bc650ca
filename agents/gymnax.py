"""`python -m agents.gymnax --env Acrobot-v1 --distractors 8` trains an agent on a registered gymnax environment.

`--env mypackage.module:Class` takes an `mbrl_taskmet.rl.environment.Environment` of your own, made without arguments.
"""

import sys

from agents.command import main

if __name__ == "__main__":
    sys.exit(main())
