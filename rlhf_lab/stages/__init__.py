"""The three steps, each read from top to bottom: SFT, reward model, PPO."""
