"""The rounds of a replica beside its machine: asked by a leader, answered by whoever obeys it."""

from ultraengine.model.ids import Epoch
from ultraengine.replication import follower as followers
from ultraengine.replication import leader as leaders
from ultraengine.replication.effects import Effects, Sending
from ultraengine.replication.leader import Leader
from ultraengine.replication.messages import Confirm, Confirmed
from ultraengine.replication.reading.rounds import Rounds
from ultraengine.replication.record import Seat
from ultraengine.replication.replica import Replica


class Asking:
    """What one life of a replica asks and answers for the sake of reads."""

    def __init__(self, machine: Replica) -> None:
        self._machine = machine
        self._rounds = Rounds()
        self._epoch: Epoch | None = None
        """The leadership that the rounds are of."""

    @property
    def proved(self) -> int | None:
        """The newest round after whose begin this life has led; None when it leads no more."""
        leader = self._leading()
        return None if leader is None else self._rounds.proved(self._others(leader))

    def want(self) -> tuple[int, Effects]:
        """A read has arrived: the round that it waits for, until `proved` is as high."""
        effects = Effects()
        leader = self._leading()
        number = self._rounds.want()
        if leader is not None:
            self._send(leader, effects)
        return number, effects

    def receive(self, message: Confirm | Confirmed) -> Effects:
        """A question of a leader, or an answer to one's own."""
        effects, machine = Effects(), self._machine
        if isinstance(message, Confirm):
            if followers.obeys(machine.follower, message.epoch, message.leader):
                said = Confirmed(message.epoch, message.leader, machine.me, message.number)
                effects.sends.append(Sending(message.leader.seat.replica, said))
            return effects
        leader = self._leading()
        if leader is not None and (message.epoch, message.leader) == (leader.epoch, machine.me):
            self._rounds.heard(message.me.seat, message.number)
            self._send(leader, effects)
        return effects

    def tick(self) -> Effects:
        """Time has passed: whoever has not answered is asked again."""
        effects = Effects()
        leader = self._leading()
        if leader is not None:
            self._send(leader, effects, again=True)
        return effects

    def _leading(self) -> Leader | None:
        leader = self._machine.leader
        if leader is None or leader.over:
            return None
        if leader.epoch != self._epoch:
            self._epoch, self._rounds = leader.epoch, Rounds()
        return leader

    def _others(self, leader: Leader) -> list[Seat]:
        return [seat for seat in leaders.wait_set(leader) if seat != leader.me.seat]

    def _send(self, leader: Leader, effects: Effects, *, again: bool = False) -> None:
        others = self._others(leader)
        if self._rounds.due(others) is None and not again:
            return
        number, seats = self._rounds.unanswered(others)
        confirm = Confirm(leader.epoch, leader.me, number)
        effects.sends += [Sending(seat.replica, confirm) for seat in seats]
