"""Environments of the control tasks, T tasks x K trajectories stepped at once, and the rollouts of policies in them.

An environment is defined once, by pure functions (`Model`). A back end (`BatchEnv`) steps it.
"""

from benchmarks.environments.actions import ActionSpace as ActionSpace
from benchmarks.environments.actions import Categorical as Categorical
from benchmarks.environments.actions import Gaussian as Gaussian
from benchmarks.environments.batch import BatchEnv as BatchEnv
from benchmarks.environments.batch import Model as Model
from benchmarks.environments.batch import TensorModel as TensorModel
from benchmarks.environments.distribution import ControlTasks as ControlTasks
from benchmarks.environments.rollout import Rollouts as Rollouts
from benchmarks.environments.rollout import Trajectories as Trajectories
