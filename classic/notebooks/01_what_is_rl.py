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
# # 1. What is reinforcement learning?
#
# A child learns to walk without ever being shown the right angle of the knee. It tries, it falls, it tries again.
# That is reinforcement learning: an **agent** acts, an **environment** answers with a new **state** and a **reward**,
# and the agent is to collect as much reward as it can. Nobody says which action was right.
#
# In this notebook you drive the agent yourself, over a frozen lake where two of three steps slip to the side. Then
# you meet the best agent that there can be, and see how much luck there is in any test.

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
import numpy as np
from IPython.display import display

from classic.environments import make_environment
from classic.notebook_controls import replay
from classic.pictures import picture_of_table_episode
from classic.playing_picture import picture_of_playing
from classic.records import table_text
from classic.tabular_model import tabular_model
from classic.what_is_rl import SUPERVISED_AND_REINFORCEMENT, agents_of, play
from classic.what_is_rl_command import rows_of_agents
from classic.what_is_rl_panels import best_table, clock_panel, drive_panel, luck_panel

# %% [markdown]
# ## Two ways to learn
#
# In supervised learning somebody knows the answers. In reinforcement learning there is only a number, it may come
# late, and what the agent does decides which data it gets to see.

# %%
print(table_text(["", "supervised learning", "reinforcement learning"], SUPERVISED_AND_REINFORCEMENT))

# %% [markdown]
# ## The loop
#
# The lake has 16 states (squares, numbered row by row) and 4 actions. The reward is 1 on reaching the goal and 0
# everywhere else; a hole ends the episode. An agent that walks at random:

# %%
model = tabular_model("FrozenLake-v1")
env = make_environment("FrozenLake-v1")
agents = agents_of(model, env)

for step in play(env, agents["random"][0], seed=3):
    print(step)

# %% [markdown]
# An episode ends in one of two ways, and the difference will matter in every lesson: it **terminated** (a hole, the
# goal: nothing is to come) or it was **truncated** (the clock of 100 steps ran out: there was a future, we only
# stopped watching).
#
# What the agent wants is the **return**, the sum of the rewards of an episode of $T$ steps:
#
# $$G = \sum_{t=1}^{T} r_t \tag{1.1}$$

# %% [markdown]
# ## You are the agent
#
# Your **policy** is whatever goes on in your head: it says which action to take in which state. Press a button; the
# ice moves you where you wanted in one case of three, and to either side in the others. Can you reach the goal
# (yellow)?

# %%
display(drive_panel())

# %% [markdown]
# ## How well can it be done?
#
# Because the lake's probabilities are known, so is the answer, exactly and without playing:
#
# - at random: 0.014 of all episodes reach the goal;
# - the best **table** (one action for each state, all that lesson 2 can learn): 0.740;
# - the best that also looks at the **clock**: 0.744. With few steps left it pays to take risks. Nobody can do better.
#
# Beside it, what 300 episodes of playing show: a share $\hat p$ of $n$ episodes reached the goal. Wilson's interval is
# all rates that such a test does not contradict at 95 % ($z = 1.96$). It knows that one episode that failed leaves
# nearly everything open, where the mean plus and minus two standard errors would say "never":
#
# $$\frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}{1 + z^2 / n} \tag{1.2}$$

# %%
rows = rows_of_agents(env, model, 300, seed=0, quiet=True)
print(table_text(["agent", "exact", "played", "from", "to"], rows))

# %% [markdown]
# The same episodes as they come in, with the two exact limits as lines. To tell 0.740 from 0.744 by playing would
# take about a hundred thousand episodes of each; the formula needs none.

# %%
display(picture_of_playing(env, model, 300, seed=0))

# %% [markdown]
# ## How much of a test is luck?
#
# Courses ask for "0.70 over 100 episodes". A success rate $p$ gives $k$ successes in $n$ episodes with probability
#
# $$P(k) = \binom{n}{k} \, p^k \, (1-p)^{n-k} \tag{1.3}$$
#
# so that even the best table fails that test 15 times in 100, and looks like 0.78 or more 22 times in 100. Move the
# sliders: how many episodes do you need before the test speaks about the agent?

# %%
display(luck_panel())

# %% [markdown]
# That is why these lessons judge exactly where they can, and show several seeds where they cannot.
#
# ## Value: what is still to come
#
# The **value** of a state is the return to expect from there on. With $k$ steps left, the best of them follows from
# the one with $k - 1$ steps left: look one step ahead, take the better action. This is Bellman's idea, and all of the
# field stands on it:
#
# $$v_k(s) = \max_a \sum_{s'} p(s' \mid s, a) \, \bigl( r + v_{k-1}(s') \bigr), \qquad v_0 = 0 \tag{1.4}$$
#
# where nothing follows a state in which the episode has ended. Green is a high value; the arrows are best actions.
# Watch them change as the clock runs out: with one step left, only the square beside the goal is worth anything.

# %%
display(clock_panel())

# %% [markdown]
# ## The best table at work
#
# Notice how it walks *away* from holes: on ice that slips to the side, pressing against the wall is safer than
# walking past.

# %%
frames = picture_of_table_episode(model, best_table(model), np.random.default_rng(4))
display(replay(frames))

# %% [markdown]
# ## Try
#
# 1. Drive ten episodes. Are you closer to 0.014 or to 0.740?
# 2. How many episodes does a test need so that the best table fails "0.70" less than once in a hundred?
# 3. `python -m classic.what_is_rl --env Taxi-v4 --play` lets you drive a taxi from the terminal.
#
# Next: [lesson 2](02_q_learning.ipynb), in which the table is *learned* by an agent that does not know the ice.
