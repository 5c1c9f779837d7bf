"""
Devices spread over processes.
"""

from __future__ import annotations

import multiprocessing
import time
from array import array
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import attrs

from mpush_tw.bench.devices import DeviceLoad, Devices

_ANSWER_SECONDS = 300.0


@attrs.define
class FleetResult:
    """
    What all processes measured.

    @ivar cpu: The largest share of a core that one process used while it worked.
    """

    bound: int = 0
    pushes: int = 0
    failed: int = 0
    lost: int = 0
    cpu: float = 0.0
    opening_ns: array[int] = attrs.Factory(lambda: array("q"))
    latency_ns: array[int] = attrs.Factory(lambda: array("q"))

    def add(self, part: FleetResult) -> None:
        """
        Take in what one process measured.
        """
        self.bound += part.bound
        self.pushes += part.pushes
        self.failed += part.failed
        self.lost += part.lost
        self.cpu = max(self.cpu, part.cpu)
        self.opening_ns.extend(part.opening_ns)
        self.latency_ns.extend(part.latency_ns)


class Fleet:
    """
    Generator processes, each with its share of the devices.
    """

    def __init__(
        self,
        host: str,
        port: int,
        public_key: str,
        devices: int,
        processes: int,
        concurrency: int,
        sources: int,
        first: int = 0,
        tag_groups: int = 0,
    ) -> None:
        """
        @param first: Number of the first device and its user.
        @param tag_groups: See L{DeviceLoad}.
        """
        share, rest = divmod(devices, processes)
        spawn = multiprocessing.get_context("spawn")
        self._workers: list[tuple[BaseProcess, Connection]] = []
        for number in range(processes):
            count = share + (number < rest)
            load = DeviceLoad(
                host,
                port,
                public_key,
                first,
                count,
                max(1, concurrency // processes),
                sources,
                tag_groups,
            )
            first += count
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_work, args=(load, theirs), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    def open_all(self) -> FleetResult:
        """
        Bind all devices and hold them.
        """
        return self._ask("open")

    def churn(self, seconds: float, warm: float) -> FleetResult:
        """
        Connect, bind and close for a while; C{bound} is how many.
        """
        return self._ask("churn", seconds, warm)

    def reset(self) -> None:
        """
        Forget what has been received so far.
        """
        self._ask("reset")

    def collect(self) -> FleetResult:
        """
        Take what has been received since the last reset.
        """
        return self._ask("collect")

    def close(self) -> None:
        """
        Close all devices and end the processes.
        """
        for process, pipe in self._workers:
            try:
                pipe.send(("close",))
            except OSError:
                pass
            process.join(5)
            if process.is_alive():
                process.terminate()
                process.join(5)
            pipe.close()

    def _ask(self, *question: Any) -> FleetResult:
        for _, pipe in self._workers:
            pipe.send(question)
        total = FleetResult()
        for _, pipe in self._workers:
            if not pipe.poll(_ANSWER_SECONDS):
                raise RuntimeError("a generator process does not answer")
            try:
                part = pipe.recv()
            except EOFError:
                raise RuntimeError("a generator process has ended") from None
            if isinstance(part, Exception):
                raise RuntimeError(str(part))
            total.add(part)
        return total


def _work(load: DeviceLoad, pipe: Connection) -> None:
    devices = Devices(load)
    commands: dict[str, Callable[..., FleetResult]] = {
        "open": lambda: _opened(devices),
        "churn": lambda seconds, warm: _churned(devices, seconds, warm),
        "reset": lambda: _reset(devices),
        "collect": lambda: _collected(devices),
    }
    started = [time.monotonic(), time.process_time()]
    try:
        while True:
            devices.hold(pipe.poll)
            name, *arguments = pipe.recv()
            if name == "close":
                return
            if name != "collect":
                started[:] = time.monotonic(), time.process_time()
            try:
                result = commands[name](*arguments)
            except Exception as error:
                pipe.send(error)
                continue
            elapsed = time.monotonic() - started[0]
            result.cpu = (time.process_time() - started[1]) / max(elapsed, 1e-3)
            pipe.send(result)
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return
    finally:
        devices.close()


def _opened(devices: Devices) -> FleetResult:
    devices.open_all()
    return FleetResult(
        bound=len(devices.opening_ns),
        failed=devices.failed,
        opening_ns=devices.opening_ns,
    )


def _churned(devices: Devices, seconds: float, warm: float) -> FleetResult:
    bound = devices.churn(seconds, warm)
    return FleetResult(
        bound=bound, failed=devices.failed, opening_ns=devices.opening_ns
    )


def _reset(devices: Devices) -> FleetResult:
    devices.pushes = 0
    devices.latency_ns = array("q")
    return FleetResult()


def _collected(devices: Devices) -> FleetResult:
    return FleetResult(
        pushes=devices.pushes, lost=devices.lost, latency_ns=devices.latency_ns
    )
