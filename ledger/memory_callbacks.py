"""The lines of the hosts that are to be told of tasks' ends, in memory."""

from collections.abc import Iterator, Mapping

from ledger.store import DueCallback


class CallbackLines:
    """One partition's."""

    def __init__(self) -> None:
        self.hosts: dict[str, dict[str, int]] = {}
        """By host: when each task's callback is due, in ms."""
        self.news = False
        """Somebody should come and look."""

    def enter(self, host: str, task_id: str, at_ms: int) -> None:
        self.hosts.setdefault(host, {})[task_id] = at_ms
        self.news = True

    def leave(self, host: str, task_id: str) -> None:
        line = self.hosts.get(host, {})
        line.pop(task_id, None)
        if not line:
            self.hosts.pop(host, None)

    def take(
        self, count: int, host_max: int, in_hand: Mapping[str, int], due: int, until: int
    ) -> list[DueCallback]:
        """What was due at `due`, put off until then; see `Store.take_callbacks`."""
        left = {host: host_max - in_hand.get(host, 0) for host in self.hosts}
        taken: list[DueCallback] = []
        for callback in self._in_turn(left, due):
            if len(taken) == count:
                self.news = True
                break
            self.hosts[callback.host][callback.task_id] = until
            taken.append(callback)
        return taken

    def _in_turn(self, left: dict[str, int], due: int) -> Iterator[DueCallback]:
        """The first of the host that has most places left, again and again."""
        while True:
            first = [
                (-left[host], at, host, task_id)
                for host, line in self.hosts.items()
                for task_id, at in line.items()
                if at <= due and left[host] > 0
            ]
            if not first:
                return
            _, _, host, task_id = min(first)
            left[host] -= 1
            yield DueCallback(host, task_id)
