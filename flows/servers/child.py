"""A process of `make serve` that ends with its parent, however that ends, and takes its own along.

`python -m flows.servers.child PARENT MODULE WORDS...` does what `python -m MODULE WORDS...` does.
"""

from __future__ import annotations

import runpy
import sys
import threading

from tasks.machine.serving import end_with

if __name__ == "__main__":
    parent, module, *words = sys.argv[1:]
    threading.Thread(target=end_with, args=(int(parent),), daemon=True).start()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
