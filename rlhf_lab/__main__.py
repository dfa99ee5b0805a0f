"""The command line as a module: `python -m rlhf_lab run`, `accelerate launch -m rlhf_lab ppo`."""

from rlhf_lab.cli import main

if __name__ == "__main__":
    main()
