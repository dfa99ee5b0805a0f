"""Reads checkpoints and writes JSON about them; never imports the stages."""
