"""Steps, saves and restores the environments of one worker in the tensors of a run."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.carrier import Carrier, InPlace, Slots
from dexgrasp_sim.transport.layout import RESULT_NAMES, RunLayout, rollout_schema_hash
from dexgrasp_sim.transport.protocol import ProtocolError
from dexgrasp_sim.transport.telemetry import WorkerState, WorkerTelemetry
from dexgrasp_sim.vec_env import VecEnv


class Health(NamedTuple):
    """What the host must know of a slot.

    Attributes:
        sound: Whether no environment has diverged and all numbers are finite.
        newest_episode: Largest number of an episode.
        ended: How many episodes have ended.
    """

    sound: bool
    newest_episode: int
    ended: int


class EnvSlice:
    """The environments of one worker, bound to their rows of the rollout tensors."""

    def __init__(
        self,
        env: VecEnv,
        layout: RunLayout,
        tensors: Mapping[str, Tensor],
        telemetry: WorkerTelemetry,
        index: int,
        clock: Callable[[], float] = time.perf_counter,
        carrier: Callable[[Slots], Carrier] = InPlace,
    ) -> None:
        """Prepares the views of every slot.

        Args:
            env: As many environments as the worker's slice holds.
            layout: Of the run.
            tensors: The rollout tensors by name, see `RunLayout.rollout_blocks`.
            telemetry: The worker's telemetry row.
            index: Worker index.
            clock: Seconds, for the time spent stepping.
            carrier: Makes the carrier of the slots to the learner.

        Raises:
            ProtocolError: The environments' specs differ from the layout.
        """
        self.schema_hash = rollout_schema_hash(
            env.observation_specs, env.action_dim, env.episode_fields
        )
        if self.schema_hash != layout.schema_hash:
            raise ProtocolError(
                f"worker {index}: its environments have schema {self.schema_hash}, the run has "
                f"{layout.schema_hash}; install the same version of dexgrasp on both sides"
            )
        self.env = env
        self.telemetry = telemetry
        self._start, self._stop = layout.slices[index]
        rows = slice(self._start, self._stop)
        names = [spec.name for spec in layout.observation_specs] + [*RESULT_NAMES]
        slots = range(layout.horizon + 1)
        self._carrier = carrier(
            [{name: tensors[name][slot, rows] for name in names} for slot in slots]
        )
        self._out = self._carrier.out
        self._actions = [tensors["actions"][slot, rows] for slot in range(layout.horizon)]
        self._sequence = tensors["sequence"][:, index].numpy()
        self._metadata = state_metadata(layout, index)
        self._clock = clock
        floats = [s.name for s in layout.observation_specs if s.torch_dtype.is_floating_point]
        self._floats = ("reward", *floats)
        self._slot = 0
        self._steps = 0
        self._episodes = 0
        self._ended = 0
        self._step_s = 0.0
        self._rendered_s = 0.0

    def reset(self) -> None:
        """Starts episodes in all environments; fills slot 0 and sets its end-of-episode flags."""
        self._episodes = 0
        self._begin(slot=0, steps=0, first_episode=0)
        self._out[0]["terminated"].fill_(True)
        self._out[0]["valid"].fill_(True)
        self._carrier.publish(0)
        self._sequence[0] = 0
        self.telemetry.count(episodes=0)
        self.show()

    def take_over(self, slot: int, steps: int) -> None:
        """Replaces a lost worker, with new episodes.

        Args:
            slot: The lost worker's newest slot, or the one it had not completed; it is filled
                again.
            steps: Sequence number of this slot.
        """
        self._episodes = self.telemetry.counter("episodes")
        self._begin(slot, steps, self.telemetry.counter("newest_episode"))
        self._out[slot]["valid"].fill_(False)
        self._carrier.publish(slot)
        self._sequence[slot] = steps
        self.show()

    def _begin(self, slot: int, steps: int, first_episode: int) -> None:
        """Starts episodes in all environments and fills a slot except its sequence number."""
        self._slot, self._steps = slot, steps
        self.env.set_difficulty(self.telemetry.difficulty)
        self.env.reset(self._out[slot], first_episode)
        health = self._health(slot)
        if not health.sound and len(self._broken(slot)):
            raise FloatingPointError("the first observations of an episode are not finite")
        self._out[slot]["truncated"].fill_(True)
        self._rendered_s = self.env.timings()["render"]
        self._tell_progress(health)

    def _tell_progress(self, health: Health) -> None:
        newest = health.newest_episode
        self.telemetry.count(steps=self._steps, slot=self._slot, newest_episode=newest)

    def step(self, slot: int, policy_version: int) -> None:
        """Applies `actions[slot]` and fills slot + 1; writes its sequence number last."""
        self.telemetry.count(state=WorkerState.STEPPING, policy_version=policy_version)
        self.env.set_difficulty(self.telemetry.difficulty)
        begin_s = self._clock()
        self.env.step(self._carrier.fetch(self._actions[slot]), self._out[slot + 1])
        self._out[slot + 1]["valid"].fill_(True)
        health = self._health(slot + 1)
        if not health.sound and len(broken := self._broken(slot + 1)):
            self._reset_broken(broken, slot + 1)
            health = self._health(slot + 1)
        self._ended = health.ended
        self._carrier.publish(slot + 1)
        self._step_s = self._clock() - begin_s
        self._slot = slot + 1
        self._steps += 1
        self._tell_progress(health)
        self._sequence[slot + 1] = self._steps

    def _health(self, slot: int) -> Health:
        """Asks the device once."""
        out = self._out[slot]
        # one sum over everything, which is finite only if all its terms are
        sums = torch.stack([out[name].sum(dtype=torch.float32) for name in self._floats])
        ended = ((out["terminated"] | out["truncated"]) & out["valid"]).sum()
        figures = (sums.sum(), self.env.diverged.any(), self.env.episode_count.max(), ended)
        total, diverged, newest, count = torch.stack(
            [figure.to(sums.device, torch.float64) for figure in figures]
        ).tolist()
        return Health(math.isfinite(total) and not diverged, int(newest), int(count))

    def _broken(self, slot: int) -> Tensor:
        """Environments [K] int64 that diverged or whose rows of a slot are not all finite."""
        out = self._out[slot]
        rows = [out[name].reshape(len(out[name]), -1).float().sum(1) for name in self._floats]
        finite = torch.isfinite(torch.stack(rows).sum(0))
        return (~finite | self.env.diverged).nonzero().squeeze(1)

    def _reset_broken(self, broken: Tensor, slot: int) -> None:
        """Resets environments [K] int64 and marks their rows of a slot as invalid."""
        out = self._out[slot]
        out["reward"][broken] = 0.0
        self.env.reset_envs(broken, out)
        if len(self._broken(slot)):
            raise FloatingPointError(
                f"environments {(broken + self._start).tolist()} are not finite, not even after "
                "they were reset"
            )
        out["episode"][broken] = 0.0
        for name, value in (("terminated", False), ("truncated", True), ("valid", False)):
            out[name][broken] = value
        resets = self.telemetry.counter("resets_not_finite") + len(broken)
        self.telemetry.count(resets_not_finite=resets)

    def report(self) -> None:
        """Writes telemetry of the last step, while the learner already works on its result."""
        self._episodes += self._ended
        rendered_s = self.env.timings()["render"]
        rendering_s = rendered_s - self._rendered_s
        self._rendered_s = rendered_s
        self.telemetry.count(state=WorkerState.WAITING, episodes=self._episodes)
        self.telemetry.spend(simulating=self._step_s - rendering_s, rendering=rendering_s)
        self.show()

    def show(self) -> None:
        """Writes the view of the watched environment if it is in this slice and a view is due."""
        wanted = self.telemetry.wanted_env(self._start, self._stop)
        if wanted is not None:
            self.telemetry.show(wanted, self.env.telemetry(wanted - self._start))

    def save(self, path: Path) -> None:
        """Saves the state needed to continue from the slot written last.

        Raises:
            OSError: The file cannot be written, as on a full disk; no partial file remains.
        """
        tensors = {f"env.{name}": tensor for name, tensor in self.env.state_dict().items()}
        tensors |= {f"result.{name}": self._out[self._slot][name] for name in RESULT_NAMES}
        # cloned, because safetensors refuses tensors that share memory
        tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        part = path.with_suffix(".part")
        try:
            # serialised in memory, because safetensors does not raise OSError on a full disk
            part.write_bytes(save(tensors, metadata=self._metadata))
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def load(self, path: Path) -> None:
        """Continues from a file of `save`: writes its observations and results into slot 0.

        Raises:
            ConfigError: The file is damaged, or of another version of this program.
        """
        self._slot = 0
        try:
            tensors = load_file(path)
            state = {n.removeprefix("env."): t for n, t in tensors.items() if n.startswith("env.")}
            self.env.load_state_dict(state, self._out[0])
            for name in RESULT_NAMES:
                self._out[0][name].copy_(tensors[f"result.{name}"])
        except KeyError as error:
            raise ConfigError(
                f"{path}: lacks {error}; another version saved it: use that or start a new run"
            ) from None
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ConfigError(_unreadable(path, error)) from None
        self._carrier.publish(0)
        self._sequence[0] = self._steps
        self._rendered_s = self.env.timings()["render"]
        self._tell_progress(self._health(0))

    def close(self) -> None:
        """Closes the environments; idempotent."""
        self.telemetry.count(state=WorkerState.STOPPED)
        self.env.close()


def state_path(folder: Path, index: int) -> Path:
    """The file of worker `index` inside a folder of saved states."""
    return folder / f"worker_{index}.safetensors"


def state_metadata(layout: RunLayout, index: int) -> dict[str, str]:
    """Metadata of a saved state, which must equal that of the run that loads it."""
    start, stop = layout.slices[index]
    return {"schema_hash": layout.schema_hash, "envs": f"{start}..{stop}"}


def check_state_file(path: Path, layout: RunLayout, index: int) -> None:
    """Checks that worker `index` can load a saved state.

    Raises:
        ConfigError: The file is missing, damaged, or has other environments or another schema.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing; give a folder that `save_state` has written")
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata()
    except (OSError, SafetensorError) as error:
        raise ConfigError(_unreadable(path, error)) from None
    wanted = state_metadata(layout, index)
    if found != wanted:
        raise ConfigError(
            f"{path} is of {found} and worker {index} of this run has {wanted}; continue with "
            "the environments, workers and observations that the state was saved with"
        )


def _unreadable(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"{path}: cannot be read ({reason}); copy it again, or go back to an older checkpoint"
