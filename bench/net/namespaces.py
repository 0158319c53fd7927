"""Hosts of a small network on one machine: network namespaces joined by a bridge, every link limited by `tc tbf`.

Needs root, `ip` and `tc` (Debian: iproute2). The bridge lives in a namespace of its own, so nothing of the machine's own
network changes. Names carry the process id; leaving the context removes everything, also after an error or SIGTERM.
"""

import json
import os
import re
import shutil
import signal
import subprocess

RATES = {"100 Mbit": 100e6, "1 Gbit": 1e9, "unlimited": None}


class Unavailable(Exception):
    """Why namespaces cannot be made here."""


def _call(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Network:
    """`with Network(4) as network:` makes hosts 0..3 with addresses 10.77.0.1..4 on their interface eth0."""

    interface = "eth0"

    def __init__(self, hosts):
        self.hosts = hosts
        self._prefix = f"steepest{os.getpid()}"
        self._switch = f"{self._prefix}-switch"

    def __enter__(self):
        if os.geteuid() != 0:
            raise Unavailable("namespaces need root")
        for tool in ("ip", "tc", "ss"):
            if not shutil.which(tool):
                raise Unavailable(f"`{tool}` is missing; install iproute2")
        # The default action of SIGTERM would leave the namespaces behind.
        self._old_handler = signal.signal(signal.SIGTERM, lambda *_: exit(1))
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in [self.host(r) for r in range(self.hosts)] + [self._switch]:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)
        signal.signal(signal.SIGTERM, self._old_handler)

    def _make(self):
        _call("ip", "netns", "add", self._switch)
        _call("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _call("ip", "-n", self._switch, "link", "set", "bridge", "up")
        for r in range(self.hosts):
            name = self.host(r)
            _call("ip", "netns", "add", name)
            _call("ip", "-n", name, "link", "add", self.interface, "type", "veth", "peer", "name", f"port{r}",
                  "netns", self._switch)
            _call("ip", "-n", self._switch, "link", "set", f"port{r}", "master", "bridge", "up")
            _call("ip", "-n", name, "address", "add", f"{self.address(r)}/24", "dev", self.interface)
            for device in ("lo", self.interface):
                _call("ip", "-n", name, "link", "set", device, "up")

    def host(self, rank):
        return f"{self._prefix}-{rank}"

    def address(self, rank):
        return f"10.77.0.{rank + 1}"

    def command(self, rank, words):
        """`words` as a command that runs on a host."""
        return ["ip", "netns", "exec", self.host(rank), *map(str, words)]

    def limit(self, bits_per_second):
        """Every link carries this much each way; None: as much as the machine can."""
        for r in range(self.hosts):
            for namespace, device in ((self.host(r), self.interface), (self._switch, f"port{r}")):
                subprocess.run(["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"],
                               stderr=subprocess.DEVNULL)
                if bits_per_second:
                    # A burst of 2 ms is what a kernel timer needs; the queue holds 20 ms, as a switch would.
                    burst = max(int(bits_per_second / 8 * 0.002), 16000)
                    queue = max(int(bits_per_second / 8 * 0.02), 256000)
                    _call("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", "rate",
                          f"{int(bits_per_second)}bit", "burst", str(burst), "limit", str(queue))

    def cut(self, rank, cut=True):
        """Takes a host's cable out, or puts it back."""
        _call("ip", "-n", self._switch, "link", "set", f"port{rank}", "down" if cut else "up")

    def bytes_sent(self, rank):
        """Payload bytes that the open TCP connections of a host have sent, without what was sent again."""
        sockets = _call("ip", "netns", "exec", self.host(rank), "ss", "-tinOH")
        counted = {name: sum(map(int, re.findall(rf"\b{name}:(\d+)", sockets))) for name in ("bytes_sent", "bytes_retrans")}
        return counted["bytes_sent"] - counted["bytes_retrans"]

    def frames_sent(self, rank):
        """Bytes that a host's interface has sent, with all headers and acknowledgements."""
        links = json.loads(_call("ip", "-n", self.host(rank), "-s", "-j", "link", "show", self.interface))
        return links[0]["stats64"]["tx"]["bytes"]
