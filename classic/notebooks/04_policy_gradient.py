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
# # 4. Policy gradients
#
# Q-learning asks what each action is worth and takes the best. There is another way: let a network give
# **probabilities** of actions, try them, and make those that went well a little likelier. No maximum over actions, so
# actions may be continuous; and the policy that is trained is the one that acts. The price is noise, and this lesson
# is about the noise.

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
from classic.policy_gradient_panels import (
    density_panel,
    noise_panel,
    pendulum_panel,
    pole_panel,
    two_arms_panel,
)

# %% [markdown]
# ## The gradient of the return
#
# The parameters $\theta$ of the policy $\pi$ should climb the expected return. Its gradient is an expectation too, so
# it can be sampled (Williams 1992):
#
# $$\nabla_\theta \, \mathbb{E}[R] = \mathbb{E}\bigl[ R \; \nabla_\theta \log \pi(a \mid s) \bigr] \tag{4.1}$$
#
# Read it aloud: raise the log-probability of what you did, in proportion to how well it went. That is **REINFORCE**.
#
# ## Two arms
#
# Left pays 11, right pays 10. Both are good, so each sample pushes its own arm up, hard, and only the small
# difference of the two pushes is the signal. Subtract a **baseline** $b$, what is to be expected anyway:
#
# $$\mathbb{E}\bigl[ b \; \nabla_\theta \log \pi(a \mid s) \bigr] = 0 \tag{4.2}$$
#
# so the mean stays, whatever $b$ is, and the noise does not. Move the baseline to 10.5 and watch the two bars meet
# the exact gradient.

# %%
display(two_arms_panel())

# %% [markdown]
# ## The advantage
#
# The natural baseline is the value of the state. What remains is the **advantage**, how much better than usual the
# action was. The methods differ in what they put for $Q$:
#
# $$A(s, a) = Q(s, a) - V(s), \qquad
# \; Q \approx \sum_{k} \gamma^k r_{t+k} \;\text{ or }\; r_t + \gamma V(s_{t+1}) \tag{4.3}$$
#
# With the sum of rewards to come it is REINFORCE with a baseline: right on average, and noisy. With the critic's word
# for the future it is an **actor-critic** (A2C): much less noise, and as wrong as the critic is.
#
# On the real thing: a half-trained policy plays the same episodes for all three, and each makes its gradients of
# them. The dashed line is the mean gradient, the signal.

# %%
display(noise_panel())

# %% [markdown]
# ## A run, live
#
# Pick a method, press the button, pick another. One warning: the policy-gradient "loss" is no measure of anything. It
# may rise while the agent gets better. Watch the return, and below it the **entropy** (from $\log 2$, a fair coin, down
# as the policy makes up its mind; at 0 it has nothing left to compare), the **KL** of an update (how far one step moved
# the policy) and how much of the returns the critic foresees (REINFORCE has none).

# %%
pole = pole_panel()
display(pole)

# %%
display(replay(pole.episode(), milliseconds=60))

# %% [markdown]
# ## Continuous actions
#
# How hard to turn a rod is not "left or right". The policy is a normal distribution with mean $\mu$ and deviation
# $\sigma$:
#
# $$\log \pi(a) = -\frac{(a - \mu)^2}{2 \sigma^2} - \log \sigma - \tfrac12 \log 2 \pi \tag{4.4}$$
#
# If an action was good, the mean moves towards it. And the deviation? It grows if the action lay outside of one
# $\sigma$, and shrinks if it lay inside: exploration takes care of itself. Find the place where it does neither.

# %%
display(density_panel())

# %% [markdown]
# Pendulum-v1: swing the rod up and hold it there. The reward is minus angle, speed and effort, at best about -150 for
# an episode. The budget here is a fifth of the command's, so expect progress, not mastery.

# %%
pendulum = pendulum_panel()
display(pendulum)

# %% [markdown]
# ## Try
#
# 1. Two arms: left 1, right -1. Which baseline is best now? And with probability 0.9 for the left arm?
# 2. One episode in a batch instead of 8: what happens to the noise, and what to the order of the three methods?
# 3. `python -m classic.policy_gradient --method baseline --seeds 5`, or `--env Pendulum-v1` with the whole budget.
#
# Next: [lesson 5](05_ppo.ipynb). One step for each batch of samples is a waste; PPO takes many, safely.
