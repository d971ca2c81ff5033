"""What a drill has seen, a line each."""

import os
import sys
import time


class Report:
    def __init__(self, drill):
        self.drill, self.missed, self.began = drill, 0, time.monotonic()

    def seen(self, what):
        try:
            print(f"{self.drill} {time.monotonic() - self.began:5.0f} s  {what}", flush=True)
        except OSError:
            # nobody reads any more, or the disk is full: the drill goes on, and its exit status stands
            sys.stdout = open(os.devnull, "w")

    def promise(self, what, kept, seen):
        self.missed += not kept
        self.seen(f"{'kept  ' if kept else 'MISSED'}  {what}: {seen}")
