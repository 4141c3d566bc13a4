"""Says once that events cannot be sealed, and once that they can again, for all partitions."""

import structlog

log = structlog.get_logger("archiver")


class SealingTrouble:
    """Whether sealing fails, as the partitions find that share an object store."""

    def __init__(self) -> None:
        self._failing: dict[int, str] = {}

    def met(self, partition: int, reason: str) -> None:
        """Sealing failed in a partition; it is tried again."""
        if not self._failing:
            hint = "sealing is tried again and again, and nothing is trimmed meanwhile"
            log.error("archive_cannot_be_written", partition=partition, reason=reason, hint=hint)
        self._failing[partition] = reason

    def over(self, partition: int) -> None:
        """It went well in a partition."""
        if self._failing.pop(partition, None) is not None and not self._failing:
            log.info("archive_can_be_written_again")
