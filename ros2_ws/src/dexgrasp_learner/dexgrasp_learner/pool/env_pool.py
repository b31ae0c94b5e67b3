"""Makes the environment pool that a spec describes."""

from dexgrasp_learner.pool.in_process_pool import InProcessPool
from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_pool import WorkerPool


def make_pool(spec: PoolSpec) -> EnvPool:
    """Makes the pool of a spec; the caller must `start` it and `close` it at the end.

    Raises:
        ConfigError: A value of the spec or of its config is wrong, a device is not there, or
            shared memory is too small.
    """
    spec.check_devices()
    if spec.simulators.transport == "in_process":
        return InProcessPool(spec)
    return WorkerPool(spec)
