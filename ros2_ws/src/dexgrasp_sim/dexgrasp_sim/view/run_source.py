"""A running training, observed from another process through its shared memory."""

import time
from collections.abc import Callable

from typing_extensions import override

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.transport.shared_memory import remove_if_dead, run_folder
from dexgrasp_sim.transport.telemetry import VIEW_PERIOD_S, RunObserver
from dexgrasp_sim.view.source import IMAGE_GROUPS, Moment, Source

_CHECK_PERIOD_S = 1.0


class RunSource(Source):
    """Reads a run. It writes only the index of the environment that is shown.

    All observers of a run share that choice.
    """

    is_driven = False
    period_s = VIEW_PERIOD_S

    def __init__(
        self,
        run_id: str,
        config: GraspConfig,
        env: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Attaches to a run.

        Args:
            run_id: Id of the run.
            config: Task of the run, for the names of objects.
            env: Which environment to show.
            clock: Monotonic seconds, the same clock as the workers'.

        Raises:
            ConfigError: There is no such run or environment.
            ProtocolError: See `Segment.attach`.
        """
        self.name = run_id
        self._run_id, self._config, self._clock = run_id, config, clock
        self._observer = RunObserver(run_id)
        layout = self._observer.layout
        self.num_envs = layout.num_envs
        names = {spec.name for spec in layout.observation_specs}
        self.groups = tuple(group for group in IMAGE_GROUPS if group in names)
        self._started_s = self._checked_s = clock()
        self._has_ended = False
        self.env = env
        try:
            self._observer.watch(env)
        except ValueError as error:
            self._observer.close()
            raise ConfigError(f"run {run_id}: {error}; choose another one") from None

    @override
    def select(self, env: int) -> None:
        self.env = env
        self._observer.watch(env)

    @override
    def advance(self) -> None:
        """Has no effect: the workers of the run step it."""

    @override
    def restart(self) -> None:
        """Has no effect: the workers of the run start its episodes."""

    @override
    def moment(self) -> Moment | None:
        view = self._observer.view()
        reward = self._observer.observation("reward")
        if view is None or reward is None:
            return None
        newest = {group: self._observer.observation(group) for group in self.groups}
        statuses = self._observer.statuses()
        return Moment(
            env=view.env,
            time_s=view.time_s - self._started_s,
            joint_position=view.values["joint_position"],
            object_pose=view.values["object_pose"],
            goal=view.values["goal"],
            reward=float(reward),
            images={group: image for group, image in newest.items() if image is not None},
            facts={
                "object": self._config.objects[view.env % len(self._config.objects)].name,
                "workers": str(len(statuses)),
                "steps of each worker": str(min(status.steps for status in statuses)),
                "policy version": str(min(status.policy_version for status in statuses)),
                "episodes": str(sum(status.episodes for status in statuses)),
            },
        )

    @property
    @override
    def has_ended(self) -> bool:
        if self._clock() - self._checked_s >= _CHECK_PERIOD_S:
            self._checked_s = self._clock()
            gone = not (run_folder(self._run_id) / "tensors").exists()
            self._has_ended = gone or remove_if_dead(self._run_id)
        return self._has_ended

    @override
    def close(self) -> None:
        self._observer.close()
