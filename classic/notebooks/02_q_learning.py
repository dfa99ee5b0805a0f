# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Q-learning
#
# In lesson 1 we computed the best table, because we knew the ice. An agent does not. It has to find out by walking,
# and it can: with one line of arithmetic, repeated.
#
# The table holds $Q(s, a)$: the discounted reward to come after action $a$ in state $s$. Here you watch one update
# with its numbers, then turn the three knobs that every course has ($\alpha$, $\gamma$, $\varepsilon$), each with the
# exact limit beside it.

# %% [markdown]
# The first cell installs what is missing on Colab and Kaggle; elsewhere it does nothing.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("classic") is None and (
    "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
):
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "rlhf-lab[notebooks]"])

# %%
from IPython.display import display

from classic.notebook_controls import replay
from classic.q_learning_panels import cliff_panel, gamma_panel, settings_panel, taxi_panel, update_panel

# %% [markdown]
# ## One update
#
# The agent is in $s$, does $a$, gets the reward $r$ and stands in $s'$. What it has just seen suggests a **target**
# for $Q(s, a)$: the reward, and the best that it believes can follow, discounted by $\gamma$ a step:
#
# $$y = r + \gamma \, \max_{a'} Q(s', a') \qquad (y = r \text{ where the episode terminated}) \tag{2.1}$$
#
# It moves its belief a little towards the target, by the step size $\alpha$:
#
# $$Q(s, a) \leftarrow Q(s, a) + \alpha \, \bigl( y - Q(s, a) \bigr) \tag{2.2}$$
#
# Press *one step* a few times and read the numbers. For a long while everything is 0: the reward is at the far end,
# and it has to seep back one state at a time. Then press *2,000 steps*.

# %%
display(update_panel())

# %% [markdown]
# ## Explore or exploit
#
# Always doing what looks best means never finding out. **Epsilon-greedy** tosses a coin: with probability
# $\varepsilon$ any of the $A$ actions, else the best one. So each action has the probability
#
# $$\pi(a \mid s) = \frac{\varepsilon}{A} + (1 - \varepsilon) \, [\, a = \arg\max_b Q(s, b) \,] \tag{2.3}$$
#
# (several best ones share). The trap that has cost learners days: `argmax` of an empty row is action 0, so an agent
# without random tie-breaking walks left for ever and never sees a reward.
#
# ## Three knobs
#
# Behind every move of a slider is a whole training of 200,000 steps, judged exactly: no test episodes, no luck. Look
# for
#
# - an $\varepsilon$ of 0 (nothing is ever found) and of 1 (all is found, and while exploring it earns nothing);
# - $\alpha$ near 1 without decay: the newest slip of the ice overwrites everything;
# - $\gamma$ below 0.98: the greedy policy drops from 0.740 to 0.730. Why? See below.

# %%
display(settings_panel())

# %% [markdown]
# ## What gamma costs
#
# Learning without noise would end at the fixed point of Bellman's optimality equation:
#
# $$Q^*(s, a) = \sum_{s'} p(s' \mid s, a) \, \bigl( r + \gamma \max_{a'} Q^*(s', a') \bigr) \tag{2.4}$$
#
# The best table for a discounted return is not always the best one for reaching the goal. On the small lake $\gamma
# \ge 0.979$ is enough. On the large one the curve is not even monotone: 0.863 at 0.99, 0.894 at 0.995, 0.886 at
# 0.999. Note also the two numbers under the picture: the discounted value of the start is *not* the chance to reach
# the goal.

# %%
display(gamma_panel())

# %% [markdown]
# ## The cliff: what you learn depends on how you act
#
# Falling costs 100, a step costs 1. Q-learning takes the best next action for granted, whatever the agent really
# does. **Sarsa** bootstraps from the action $a'$ that it will take, **Expected Sarsa** from the mean over its policy:
#
# $$y_{\text{Sarsa}} = r + \gamma \, Q(s', a'), \qquad
# \; y_{\text{Expected}} = r + \gamma \sum_{a'} \pi(a' \mid s') \, Q(s', a') \tag{2.5}$$
#
# Q-learning finds the shortest path, along the edge: 13 steps if it never slips, and dear while it explores, because
# every stray step falls. The other two keep away from the edge. Move $\varepsilon$ to 0 and the quarrel is over.

# %%
display(cliff_panel())

# %% [markdown]
# ## A taxi
#
# 500 states, 6 actions, a passenger to fetch and bring home. The best possible mean return is 7.93, exactly; the
# threshold of 8 that some courses ask for cannot be reached by anybody. Press the button: three million steps take a
# few seconds, because 256 taxis learn one table side by side.

# %%
taxi = taxi_panel()
display(taxi)

# %%
display(replay(taxi.episode()))

# %% [markdown]
# ## Try
#
# 1. With $\alpha$ constant at 0.1, how far does the largest error of $Q$ stay from 0? And with decay?
# 2. On the cliff, at which $\varepsilon$ does Expected Sarsa change its path?
# 3. `python -m classic.q_learning --env FrozenLake8x8-v1 --gamma 0.995 --seeds 5`: do all five find 0.894?
#
# Next: [lesson 3](03_dqn.ipynb). A pole on a cart has infinitely many states; no table holds them.
