"""Prompts in, completions out: one public function and the engines behind it."""
