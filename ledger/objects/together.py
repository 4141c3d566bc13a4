"""Several things done at once, where each may fail."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Result = TypeVar("Result")


async def all_done(work: Iterable[Awaitable[Result]]) -> list[Result]:
    """Do all of it at once. When one fails, its error is raised once the others came to an end."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
