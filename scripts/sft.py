"""Step 1, supervised fine-tuning: `accelerate launch scripts/sft.py [CONFIG] [section.key=value ...]`."""

import sys

from rlhf_lab.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "sft")
    main()
