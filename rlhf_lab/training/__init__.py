"""What the stages share: the run, its records and its checkpoints."""
