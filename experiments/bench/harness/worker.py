"""Process of one contestant: makes the object it is told to, then calls its methods, a line of JSON each.

Started by `contestant.py`. Nothing that computes is imported before the process is bound to its cores, and what
libraries print goes to standard error.
"""

import importlib
import json
import os
import sys

from tx.errors import UserError


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    served = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if served is None:
                if hasattr(os, "sched_setaffinity"):
                    os.sched_setaffinity(0, message["cores"])
                module, _, name = message["served"].partition(":")
                module = importlib.import_module(f"experiments.bench.{module}")
                served = getattr(module, name)(**message["arguments"])
                answer = {"result": {}}
            else:
                answer = {"result": getattr(served, message["method"])(**message["arguments"])}
        except UserError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if hasattr(served, "close"):
        served.close()


if __name__ == "__main__":
    main()
