"""Films of robots for the page, by MuJoCo's offscreen renderer."""

import numpy as np
import pytest
import torch

from benchmarks import registry

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")


class Steady:
    """A policy for this many tasks with one constant control of all motors, without noise."""

    def __init__(self, control, tasks):
        self.control, self.tasks = control, tasks

    def __call__(self, x, memory=None):
        assert len(x) == self.tasks
        means = torch.full((*x.shape[:2], 8 if x.shape[2] > 20 else 6), self.control)
        return torch.cat((means, torch.full_like(means, -30.0)), -1), None


def built(name, simulator="batch", **fields):
    return registry.build_task(f"{name}/quick", simulator=simulator, **fields)


def test_the_exhibit_is_a_film_of_the_first_trajectory():
    tasks = built("half-cheetah-direction", "batch", horizon=60)
    episodes = tasks.episodes("test", range(2), queries=3)
    shown = tasks.exhibit({0: Steady(10.0, 2), 3: Steady(0.0, 2)}, episodes)
    if not shown:
        pytest.skip("MuJoCo has no offscreen renderer here")
    assert shown["frames"].shape == (2, 17, 90, 160, 3), "at most 17, of 0.15 s"
    assert shown["frames"].dtype == np.uint8
    assert shown["steps"].tolist() == [0, 3]
    assert np.array_equal(shown["task"], episodes.query.parameters[0])
    assert np.array_equal(shown["frames"][0, 0], shown["frames"][1, 0]), "both begin in the same place"
    moved = np.abs(np.diff(shown["frames"].astype(int), axis=1)).mean((2, 3, 4))
    assert moved[0, 10:].mean() > 1.5 * moved[1, 10:].mean() > 0


def test_positions_of_a_film_are_those_of_the_trajectory():
    tasks = built("half-cheetah-direction", "rollout", observation="joints-torso")
    source = tasks.episodes("test", range(2), queries=3).query
    positions = tasks._positions(source, Steady(7.0, 2))
    seen = source.batch(Steady(7.0, 2), 0).observations[0, 0].double().numpy()
    assert np.allclose(positions[:, 1:], seen[:, :8], atol=1e-6)
    assert np.allclose(positions[:, 0], seen[:, -3], atol=1e-6)


@pytest.mark.parametrize("library", ["nowhere", "disable"])
def test_without_a_renderer_there_is_no_film(library, monkeypatch, capfd):
    monkeypatch.setenv("MUJOCO_GL", library)
    tasks = built("ant-velocity", horizon=2)
    assert tasks.exhibit({0: Steady(1.0, 1)}, tasks.episodes("test", [0])) == {}
    assert capfd.readouterr() == ("", "")


def test_shadows_are_drawn_from_a_small_map(monkeypatch):
    """Without a GPU the shadow map takes most of a frame's time, and films would take longer than all tests."""
    import mujoco

    from benchmarks.environments import rendering
    from benchmarks.environments.simulators import description

    sizes = []

    class Renderer:
        def __init__(self, model, height, width):
            sizes.append(model.vis.quality.shadowsize)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def update_scene(self, data, camera):
            pass

        def render(self):
            return np.zeros((rendering.HEIGHT, rendering.WIDTH, 3), np.uint8)

    monkeypatch.setattr(mujoco, "Renderer", Renderer)
    before = mujoco.MjLogConfig.get()
    try:
        assert rendering.draw(str(description("half_cheetah.xml")), np.zeros((2, 9))).shape == (2, 90, 160, 3)
    finally:
        before.set()
    assert sizes == [rendering.SHADOW_MAP]
    assert sizes[0] <= 1024
