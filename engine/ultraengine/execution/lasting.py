"""What a command of the engine itself changes in an executor, by its own words: no events."""

from typing import Any

from ultraengine.execution import system
from ultraengine.model.ids import Epoch


def evolve_lasting(executor: Any, data: system.Lasting, offset: int) -> None:
    """Carry out what was decided.  `executor` is an `execution.executor.Executor`."""
    if isinstance(data, system.EpochStart):
        executor.epoch = Epoch(data.epoch)
        executor.epoch_handlers = dict(data.handlers)
    elif isinstance(data, system.Skip):
        executor.skipped.add(data.offset)
    elif isinstance(data, system.RaiseFloor):
        executor.dedupe.raise_floor(data.offset)
    elif isinstance(data, system.MoveConsumer):
        if data.offset > executor.consumers.get(data.name, -1):
            executor.consumers[data.name] = data.offset
        first, end = executor.moves_only
        executor.moves_only = (first if end == offset else offset, offset + 1)
    elif isinstance(data, system.StepSlot | system.FillSlot):
        executor.moves.evolve(executor, data, offset)
    else:
        executor.consumers.pop(data.name, None)
