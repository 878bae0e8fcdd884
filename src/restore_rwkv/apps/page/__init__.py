"""The page: a web server on this machine that restores scans, and shows them before and after.

    browser --> access.py --> routes.py --+--> uploads.py  files that were dropped
                                          +--> catalogue.py  what scans there are (a thread)
                                          +--> jobs.py <--> runner.py  what is restored (a thread)
    browser <-- events.py  <--------------+

- `values.py` says in JSON what scans and jobs there are, `refusals.py` what was refused.
- `server.py` starts all parts and ends them; only it knows all of them.
- `demo.py` makes the scan that is offered where no folder was given.
- `state.py` is the folder in which all lies that the page keeps, `restoring.py` what one job does,
  and `words.py` turns messages of the library into lines that a page may show.

Nothing here is imported by the other commands: Starlette and uvicorn are the extra `page`.
"""

from typing import TYPE_CHECKING

from restore_rwkv.lazy import lazy_names

if TYPE_CHECKING:
    from restore_rwkv.apps.page.server import Page
    from restore_rwkv.apps.page.settings import PageSettings

__all__ = ["Page", "PageSettings"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "restore_rwkv.apps.page.server": ["Page"],
        "restore_rwkv.apps.page.settings": ["PageSettings"],
    },
)
