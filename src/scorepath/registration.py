"""The torch environments in Gymnasium's registry, so that `gymnasium.make_vec("scorepath/CartPole-v1")` finds them."""

import gymnasium

# name -> the class of scorepath.envs.dynamics, its arguments, and the steps of an episode; None: as the original's
ENVIRONMENTS: dict[str, tuple[str, dict[str, float], int | None]] = {
    "Acrobot-v1": ("Acrobot", {}, None),
    "CartPole-v1": ("CartPole", {}, None),
    "CartPoleSwingUp-v0": ("CartPoleSwingUp", {}, 200),
    # bounded, for learners that scale their actions to the box; the best forces stay below 7
    "DoubleIntegrator-v0": ("LQR", {"dim": 1, "coupling": 0.0, "max_force": 10.0}, 100),
    "MountainCar-v0": ("MountainCar", {}, None),
    "MountainCarContinuous-v0": ("MountainCarContinuous", {}, None),
    "Pendulum-v1": ("Pendulum", {}, None),
}


def register_environments() -> None:
    """Registers them with Gymnasium, which loads a class at its first use; does nothing if they are registered."""
    for name, (dynamics, arguments, steps) in ENVIRONMENTS.items():
        id = f"scorepath/{name}"
        if id in gymnasium.registry:
            continue
        original = None if steps else gymnasium.spec(name)
        gymnasium.register(
            id,
            entry_point="scorepath.envs.single:TorchEnv",
            vector_entry_point="scorepath.envs.vector:TorchVectorEnv",
            kwargs={"dynamics": f"scorepath.envs.dynamics:{dynamics}", "arguments": arguments},
            max_episode_steps=original.max_episode_steps if original else steps,
            reward_threshold=original.reward_threshold if original else None,
        )
