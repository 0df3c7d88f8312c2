"""The torch environments in Gymnasium's registry, so that `gymnasium.make_vec("scorepath/CartPole-v1")` finds them."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# name -> the class of scorepath.envs.dynamics, its arguments, and the steps of an episode
ENVIRONMENTS: dict[str, tuple[str, dict[str, float], int]] = {
    "Acrobot-v1": ("Acrobot", {}, 500),
    "CartPole-v1": ("CartPole", {}, 500),
    "CartPoleSwingUp-v0": ("CartPoleSwingUp", {}, 200),
    "DoubleIntegrator-v0": ("LQR", {"dim": 1, "coupling": 0.0}, 100),
    "MountainCar-v0": ("MountainCar", {}, 200),
    "MountainCarContinuous-v0": ("MountainCarContinuous", {}, 999),
    "Pendulum-v1": ("Pendulum", {}, 200),
}


def register_environments() -> None:
    """Makes them known to Gymnasium, which loads a class when it is asked for; nothing if they are known."""
    import gymnasium  # noqa: PLC0415 (a tenth of a second that `--help` does not wait for)

    for name, (dynamics, arguments, steps) in ENVIRONMENTS.items():
        id = f"scorepath/{name}"
        if id not in gymnasium.registry:
            gymnasium.register(
                id,
                entry_point="scorepath.envs.vector:TorchEnv",
                vector_entry_point="scorepath.envs.vector:TorchVectorEnv",
                kwargs={"dynamics": f"scorepath.envs.dynamics:{dynamics}", "arguments": arguments},
                max_episode_steps=steps,
            )


class _WhenImported(MetaPathFinder, Loader):
    """Imports Gymnasium as ever, and then registers."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        module.__loader__ = spec.loader = self._loader  # which tools ask for the source
        self._loader.exec_module(module)
        register_environments()


def register_when_imported() -> None:
    """Registers now if Gymnasium is there, else as soon as somebody imports it."""
    if "gymnasium" in sys.modules:
        register_environments()
    else:
        sys.meta_path.insert(0, _WhenImported())
