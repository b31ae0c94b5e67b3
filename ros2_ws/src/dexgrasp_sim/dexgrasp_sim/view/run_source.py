"""A running training, looked at from outside through its shared memory."""

import time
from collections.abc import Callable

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.transport.shared_memory import remove_if_dead, run_folder
from dexgrasp_sim.transport.telemetry import VIEW_PERIOD_S, RunObserver
from dexgrasp_sim.view.source import IMAGE_GROUPS, Moment

_CHECK_PERIOD_S = 1.0


class RunSource:
    """See `Source`. It only reads, but for the choice of the environment that is shown.

    That choice is one for all who look at the run.
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
            config: Its task, for the names of objects.
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

    def select(self, env: int) -> None:
        """See `Source.select`."""
        self.env = env
        self._observer.watch(env)

    def advance(self) -> None:
        """The run's own processes step it."""

    def restart(self) -> None:
        """Episodes are the run's own affair."""

    def moment(self) -> Moment | None:
        """See `Source.moment`."""
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
    def has_ended(self) -> bool:
        """See `Source.has_ended`."""
        if self._clock() - self._checked_s >= _CHECK_PERIOD_S:
            self._checked_s = self._clock()
            gone = not (run_folder(self._run_id) / "tensors").exists()
            self._has_ended = gone or remove_if_dead(self._run_id)
        return self._has_ended

    def close(self) -> None:
        """See `Source.close`."""
        self._observer.close()
