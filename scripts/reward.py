"""Step 2, the reward model: `accelerate launch scripts/reward.py [CONFIG] [section.key=value ...]`."""

import sys

from rlhf_lab.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "reward")
    main()
