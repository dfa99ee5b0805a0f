"""SFT against PPO on held-out prompts: `accelerate launch scripts/evaluate.py [CONFIG] [section.key=value ...]`."""

import sys

from rlhf_lab.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
