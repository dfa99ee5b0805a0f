"""Step 3, PPO: `accelerate launch scripts/ppo.py [CONFIG] [section.key=value ...]`."""

import sys

from rlhf_lab.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "ppo")
    main()
