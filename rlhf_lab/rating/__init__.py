"""People, or simulated raters, compare two completions: the page, its database, agreement, and rows for TRL.

Needs the extra `rate` for the page (`app.py`, `server.py`); the database and the statistics need numpy only.
Leaves out sampling the pairs: `rlhf_lab/rate.py` brings them from the run's SFT model or from a file.

    rlhf-lab rate runs/assistant --rater ann
"""
