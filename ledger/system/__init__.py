"""What is decided about the service as a whole: paused queues, limits, lost workers.

It is an event-sourced subject of its own, `system`, beside the tasks in partition 0.
"""
