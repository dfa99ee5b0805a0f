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
# # 5. PPO
#
# Policy gradients waste their data: one step, and the samples are stale. **Proximal policy optimisation** (Schulman
# et al. 2017) takes many small steps on the same samples, and stops each of them before the policy has run away from
# the one that sampled. That is all, and it is enough to balance poles, to walk robots, and to align language models.
#
# The functions below (`gae`, `clipped_surrogate`, `clipped_value_error`) are imported from `rlhf_lab.functional`.
# They are the very ones that train the assistant in this package.

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
import tempfile
from pathlib import Path

import numpy as np
from IPython.display import display

from classic.actor_critic import ActorCritic
from classic.notebook_controls import replay
from classic.ppo_panels import advantage_panel, clip_panel, pole_panel, time_limit_panel
from classic.saved_policies import load_policy, save_policy
from classic.training_panel import POLE, mean_return_by_hand

# %% [markdown]
# ## The clip
#
# An action was taken with some probability when it was sampled; now the policy gives it another. Their ratio is
#
# $$\rho = \frac{\pi_{\text{now}}(a \mid s)}{\pi_{\text{old}}(a \mid s)} \tag{5.1}$$
#
# and PPO maximises, for the advantage $A$ of that action and a clip range $c$,
#
# $$L = \min\bigl( \rho A, \; \mathrm{clip}(\rho, 1 - c, 1 + c) \, A \bigr) \tag{5.2}$$
#
# Was the action good ($A > 0$)? Then make it likelier, but beyond $1 + c$ nothing more is to be had: the line is
# flat, the gradient is gone. Was it bad? Then make it rarer, down to $1 - c$. Find the two places where the ratio is
# out of range and the gradient is *not* zero: there the update has gone the wrong way and is being called back.

# %%
display(clip_panel())

# %% [markdown]
# ## The advantage
#
# How much better than expected was this action? One step gives the **TD error** of the critic $V$; generalised
# advantage estimation sums those errors with weights that fall by $\gamma \lambda$ a step:
#
# $$\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t), \qquad
# \; A_t = \sum_{k \ge 0} (\gamma \lambda)^k \, \delta_{t+k} \tag{5.3}$$
#
# $\lambda = 0$ believes the critic (little noise, its errors stay), $\lambda = 1$ believes what happened (no bias,
# all the noise). In the picture the sixth of ten steps pays 1, and the critic expects 0.4 everywhere. Which steps get
# the credit?

# %%
display(advantage_panel())

# %% [markdown]
# ## The trap of the clock
#
# CartPole stops after 500 steps even if the pole still stands. That is no end of the world, only of the watching: the
# value of the last state is what the critic says, not 0. For a pole that never falls, with a reward of 1 a step, the
# right value at every step, and the one with the mistake at $k$ steps before the cut, are
#
# $$V = \frac{1}{1 - \gamma}, \qquad V_{\text{mistake}} = \frac{1 - \gamma^k}{1 - \gamma} \tag{5.4}$$
#
# At $\gamma = 0.99$: 100 everywhere, against a mean of 80.3 that ends at 1, for states that look exactly alike. Flip
# the switch.

# %%
display(time_limit_panel())

# %% [markdown]
# ## A run, live
#
# The whole loss is the clipped objective, half the squared error of the critic, and a bonus for entropy $H$:
#
# $$\text{loss} = -L + c_v \, \tfrac12 \bigl( V(s) - (A + V_{\text{old}}(s)) \bigr)^2 - c_e \, H(\pi) \tag{5.5}$$
#
# First the honest baseline. Push right where $0.05 x + 0.1 \dot x + 0.9 \theta + 0.3 \dot\theta > 0$: four numbers by
# hand, no learning. A task that four numbers solve proves that PPO *works*, not that it was needed.

# %%
print(f"by hand: {mean_return_by_hand():.1f}")

# %% [markdown]
# Now press *train ours*; it draws while it learns and stops at 500. *Train Stable-Baselines3* starts its PPO on the
# same chart, with the settings of RL Baselines3 Zoo and 8,000 of their 100,000 steps. Written out, that library's
# version of this lesson is
#
# ```python
# from stable_baselines3 import PPO
#
# model = PPO("MlpPolicy", "CartPole-v1", learning_rate=3e-4)
# model.learn(500_000)
# model.save("ppo_cartpole")
# ```

# %% [markdown]
# Below the returns stand the four figures by which one tells a healthy update from a sick one (of our latest run):
#
# - the **entropy** of the policy, $-\sum_a \pi \log \pi$, begins at $\log 2$, a fair coin, and falls slowly; a plunge
#   to 0 means that it has stopped to look around;
# - the **KL** from the policy that sampled to the one that the epochs make of it, estimated from the ratios as the mean
#   of $\rho - 1 - \log \rho$: about a hundredth here; a jump is an update that went too far;
# - the **clip fraction**: how many samples lie on the flat part of the objective and teach nothing more;
# - the **explained variance** of the critic: 1 if it foresees all returns, 0 if a constant does as well. It climbs
#   while poles fall early and late, and drops when all of them stand: then there is nothing left to explain.
#
# The loss is not among them; it says nothing about how well the agent does.

# %%
pole = pole_panel()
display(pole)

# %%
display(replay(pole.episode(), milliseconds=60))

# %% [markdown]
# ## Save, and load again
#
# A saved policy remembers its environment and repeats itself exactly: the likeliest actions, no chance.

# %%
if pole.result is not None:
    path = Path(tempfile.mkdtemp()) / "pole.pt"
    save_policy(path, pole.result.policy, env_id=POLE, lesson="ppo")
    again = load_policy(path, ActorCritic, env_id=POLE, lesson="ppo")
    seen = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    print("same actions:", (again.best(seen) == pole.result.policy.best(seen)).all())

# %% [markdown]
# ## Try
#
# 1. A clip range of 0.5, or 20 epochs: does it still get there? How often, with other seeds?
# 2. $\lambda = 0$: the critic must be right before the policy can learn. How much later does it learn?
# 3. `python -m classic.ppo --seeds 10 --stop-at 475`, or `--env Pendulum-v1` for continuous actions.
#
# Next: [lesson 6](06_real_world_rl.ipynb), where the same loss meets words.
