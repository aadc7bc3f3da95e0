"""A worker of a distributed training, as a process: `python -m tests.trainer.train_worker FN_ARGS CPUS`."""

import json
import logging
import sys
import types

import tensorflow as tf


def main() -> None:
    """Calls the Trainer's run_fn with the arguments in the JSON text FN_ARGS, on CPUS logical CPUs."""
    logging.basicConfig(level=logging.INFO)
    cpu = tf.config.list_physical_devices('CPU')[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2]))
    from trainer.train import run_fn

    run_fn(types.SimpleNamespace(**json.loads(sys.argv[1])))


if __name__ == '__main__':
    main()
