"""Base, SFT and PPO answer side by side in the browser; what each token cost and was worth; comparisons become votes.

Needs the extra `rate`, as the rating page does. What both pages share is in `rlhf_lab/rating/`: entrance, guard,
sessions, server and the store of votes. What terminal and browser share is `rlhf_lab/chat_models.py`.

    rlhf-lab chat runs/assistant --web --rater ann
"""
