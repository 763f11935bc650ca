"""Critics behind one interface: they value actions and choose them."""

from mbrl_taskmet.rl.critics.base import Bootstrap as Bootstrap
from mbrl_taskmet.rl.critics.base import Critic as Critic
from mbrl_taskmet.rl.critics.base import CriticSettings as CriticSettings
from mbrl_taskmet.rl.critics.soft_actor_critic import SoftActorCritic as SoftActorCritic
from mbrl_taskmet.rl.critics.soft_actor_critic import SoftActorCriticSettings as SoftActorCriticSettings
from mbrl_taskmet.rl.critics.soft_q import SoftQ as SoftQ
from mbrl_taskmet.rl.critics.soft_q import SoftQSettings as SoftQSettings

CRITICS: dict[str, type[CriticSettings]] = {"soft_q": SoftQSettings, "sac": SoftActorCriticSettings}
"""Every critic by the name the settings use."""
