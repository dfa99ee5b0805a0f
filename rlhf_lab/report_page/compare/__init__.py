"""The page that sets several runs side by side: which runs (`runs`), what was done differently (`settings`), what came
of it (`results`, `verdicts`), curves, samples, and the sentences at the top (`opening`).

The first run is what the others are compared with. `rlhf_lab.report` puts the page together.
"""
