"""Lessons that build up to RLHF, one file each, from Q-learning to PPO, with the equations of `rlhf_lab.functional`."""
