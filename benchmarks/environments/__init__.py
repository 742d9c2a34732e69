"""Environments of the control tasks, T tasks x K trajectories stepped at once, and the rollouts of policies in them.

An environment is defined once, by pure functions (`Model`). A back end (`BatchEnv`) steps it.
"""

from benchmarks.environments.actions import ActionSpace, Categorical, Gaussian
from benchmarks.environments.batch import BatchEnv, Model, TensorModel
from benchmarks.environments.distribution import ControlTasks
from benchmarks.environments.rollout import Rollouts, Trajectories
