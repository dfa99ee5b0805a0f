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
# # 6. Real-world RL, and RLHF
#
# Where does reinforcement learning earn its living, and what is different there? Five small worlds, each with the
# limit of what is possible and a plain word on what the sketch leaves out. Then the sixth: language models are
# aligned with the PPO of lesson 5, and in a language of 781 answers we can see *exactly* what that does, including
# how it goes wrong.

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

from classic.answers import all_answers
from classic.real_world_panels import (
    bidding_panel,
    chip_panel,
    cooling_panel,
    hacking_panel,
    recommendations_panel,
    robot_panel,
    run_picture,
    sandbox_panel,
)
from classic.rlhf_sandbox import likeliest

# %% [markdown]
# ## Recommendations: only exploration is hard
#
# Ten articles, three kinds of readers, clicks. Nothing we do changes the next reader, so there is nothing to
# bootstrap: a **bandit**. The price of not knowing is the **regret**, with $p$ the true click rates, summed over
# readers $t$:
#
# $$R_T = \sum_{t=1}^{T} \Bigl( \max_a p_a - p_{a_t} \Bigr) \tag{6.1}$$
#
# *Left out:* what is shown changes taste; clicks are not what people want in the end; articles come and go by the
# million.

# %%
display(recommendations_panel())

# %% [markdown]
# ## Ad bidding: control of a budget
#
# Second-price auctions all day, and money that must last until the evening. With hindsight one would bid the value
# divided by $1 + \mu$, with a price of money $\mu$. Pacing finds it from its own spending $z_t$ and the budget per
# auction $b$:
#
# $$\mu \leftarrow \max\bigl(0, \; \mu + \eta \, (z_t - b) \bigr) \tag{6.2}$$
#
# *Left out:* the others learn too, values are guesses, most auctions are first-price today.

# %%
display(bidding_panel())

# %% [markdown]
# ## Cooling: a table after all
#
# A machine hall, hour by hour; power is dear by day. Temperature times hour is a table, so lesson 2 applies as it
# stands, and the optimum is exact. It cools ahead at night, which no thermostat can.
#
# *Left out:* hundreds of sensors, dynamics that nobody wrote down, and safety: a real agent may not try what happens.

# %%
display(cooling_panel())

# %% [markdown]
# ## Robotics: the gap between simulation and arm
#
# Set the gains of a joint, then let the arm weigh something else than you thought. Gains tuned on 1 kg are the
# defaults here: at 0.55 kg they shake it to pieces. Tuned on many masses at once (domain randomisation) they are a
# third worse than the best that knows the mass, and hold everywhere.
#
# *Left out:* contacts, many joints, cameras, and that rough exploration breaks real arms.

# %%
display(robot_panel())

# %% [markdown]
# ## Chip design: a game of placing
#
# Nine blocks, wires as short as can be. REINFORCE learns to place; simulated annealing gets as many tries. Whether
# learning beats good annealing on real chips is disputed, and here you may see either win.
#
# *Left out:* millions of cells, timing, heat, and the real point: a network that carries over to the next chip.

# %%
display(chip_panel())

# %% [markdown]
# ## Aligning a language model
#
# "What is the capital of France?" An answer is up to four of the words *Paris, Lyon, maybe, lovely, !* and a full
# stop. The **reference** policy imitates mixed teachers. Its likeliest answers:

# %%
answers = all_answers()
for text, probability in likeliest(answers, answers.log_probs(answers.ref_logits), 6):
    print(f"{probability:.3f}  {text}")

# %% [markdown]
# **Gold** is what we want: right and short ("Paris ." is worth 0.8). We cannot compute it in real life, so people
# compare answers and a reward model learns from them. People like a compliment: the **proxy** adds a little for every
# *lovely* and *!*. That flaw is the second slider below.
#
# RLHF maximises the proxy $r$ and pays $\beta$ for every nat that the policy $\pi$ moves away from the reference:
#
# $$J(\pi) = \mathbb{E}_{\pi}[r] - \beta \, \mathrm{KL}(\pi \,\|\, \pi_{\text{ref}}) \tag{6.3}$$
#
# Among all distributions this has one optimum, and here we can afford to write it down:
#
# $$\pi^*(y) = \frac{1}{Z} \, \pi_{\text{ref}}(y) \, e^{r(y) / \beta} \tag{6.4}$$
#
# Any other policy falls short by exactly its distance to that optimum:
#
# $$J(\pi^*) - J(\pi) = \beta \, \mathrm{KL}(\pi \,\|\, \pi^*) \tag{6.5}$$

# %% [markdown]
# ## The reward-hacking slider
#
# Pull $\beta$ down from 10. First proxy and gold rise together: the policy drops Lyon. Then gold turns while the
# proxy keeps rising: *lovely lovely lovely Paris*. The turn has a formula. As the pressure $1 / \beta$ grows,
#
# $$\frac{d \, \mathbb{E}[\text{gold}]}{d \, (1 / \beta)} = \mathrm{Cov}_{\pi^*}(\text{gold}, \text{proxy}) \tag{6.6}$$
#
# so pressing harder helps for as long as, among the answers that are *still given*, the judges agree. With a flaw of
# 0.2 or less, nothing can be hacked: a compliment costs as much gold as it brings.
#
# The dotted line is best-of-$n$: draw $n$ answers, keep the one with the highest proxy. It needs no training, and its
# distance from the reference is at most
#
# $$\mathrm{KL} \le \log n - \frac{n - 1}{n} \tag{6.7}$$

# %%
display(hacking_panel())

# %% [markdown]
# ## PPO finds it
#
# A language has too many answers for $Z$; PPO needs samples only. The reward of word $t$ is the price of its KL, and
# on the last word $T$ the score of the whole answer $y$:
#
# $$r_t = -\beta \, \log \frac{\pi(w_t \mid w_{1..t-1})}{\pi_{\text{ref}}(w_t \mid w_{1..t-1})}
# \; + [\, t = T \,] \; r(y) \tag{6.8}$$
#
# In code, these are the lines of `classic/rlhf_sandbox.py`, and of the package's own PPO:
#
# ```python
# rewards = kl_penalized_rewards(scores, log_probs, ref_log_probs, mask, beta)
# advantages = gae(rewards, values, next_values, terminated=is_last, truncated=no, gamma=1.0, gae_lambda=0.95)
# loss = clipped_surrogate(log_probs - old_log_probs, standardize(advantages, mask), clip_range)
# ```
#
# Press the button. The crosses are PPO, judged exactly; they climb to the frontier and stop at the marked optimum.

# %%
display(sandbox_panel())

# %% [markdown]
# ## The bridge
#
# The same lines on a GPT-2 of a million parameters, with a reward model that was really trained from comparisons:
#
# ```bash
# rlhf-lab run                     # some minutes on two cores, offline
# rlhf-lab run ppo.kl_coef=0.02 name=cheap_kl     # and watch gold fall while the score rises
# ```
#
# Each update adds a line to `runs/assistant/ppo/metrics.jsonl`. Run the cell again while it trains; until you have a
# run of your own it shows a recorded one (`rlhf-lab run`, seed 0).

# %%
run = run_picture("runs/assistant")
display(run.picture)
print(run.text)

# %% [markdown]
# The third panel is the one that nobody has in real life. In the embedded world gold is known, so you can see whether
# the reward model was a good servant; elsewhere you keep KL small, look at samples, and ask people again.
#
# ## Try
#
# 1. Flaw 0.5: at which $\beta$ is gold highest? And at flaw 0.3?
# 2. Train PPO at $\beta = 0.05$. What does it say in the end? (`python -m classic.real_world --only sandbox --beta
#    0.05`)
# 3. `rlhf-lab chat runs/assistant` lets you talk to the assistant before and after.
