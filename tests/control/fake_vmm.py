#!/usr/bin/env python3
"""Stands in for godwit-vmm in tests of godwitd: speaks docs/formats/vmm-control.md, runs no guest.

What it does wrong is chosen by words: of the kernel command line for a VMM started with a document, of the
program's own name ("fake-vmm.crash-on-offer") for a successor. Two fakes exchange a machine by four short
messages, offer, built, commit and running; the one that receives `commit` owns it.
"""

import argparse
import fcntl
import json
import mmap
import os
import selectors
import signal
import socket
import struct
import sys
import time


def fault_words(arguments, document):
    words = os.path.basename(sys.argv[0]).split(".")[1:]
    if arguments.spec:
        words += document["kernel"].get("command_line", "").split()
    return set(words)


F_ADD_SEALS, SEALS = 1033, 1 | 2 | 4  # seal, shrink, grow


class Record:
    """The owner record (docs/formats/owner-record.md), without the atomicity."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.page = mmap.mmap(descriptor, 4096)

    @classmethod
    def create(cls, identity, instance):
        descriptor = os.memfd_create("owner", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, 4096)
        fcntl.fcntl(descriptor, F_ADD_SEALS, SEALS)
        record = cls(descriptor)
        record.page[:52] = struct.pack("<8sII36s", b"GODWOWN1", 1, 0, identity.encode())
        record.write(instance, 1)
        return record

    def read(self):
        """Owner and epoch; claimed counts as the highest bit of the epoch."""
        epoch, owner = struct.unpack("<II", self.page[56:64])
        return owner, epoch

    def write(self, owner, epoch):
        self.page[56:64] = struct.pack("<II", epoch, owner)


BUILD_ID = "fake" + os.path.basename(sys.argv[0])
NO_ID = "00000000-0000-0000-0000-000000000000"


class FakeVmm:
    def __init__(self, arguments):
        self.arguments = arguments
        self.directory = os.path.join(arguments.run_dir, "machines", arguments.machine)
        self.role = "successor" if arguments.incoming_fd is not None else "owner"
        self.state = "building" if self.role == "successor" else "running"
        self.instance = int(arguments.instance, 16)
        self.record = None
        self.offered_epoch = 0
        self.document = {}
        self.exit_code = None
        self.started = time.monotonic()
        self.selector = selectors.DefaultSelector()
        self.connections = []
        self.subscribers = []
        self.listeners = []
        self.consoles = {}
        self.exchange = None  # (socket to the successor, connection, id) while one is under way
        self.faults = set()

    # -- start ---------------------------------------------------------------------------------------------

    def load(self):
        path = self.arguments.spec
        if self.arguments.restore:
            path = os.path.join(self.arguments.restore, "machine.json")
        if path:
            with open(path, encoding="utf-8") as file:
                self.document = json.load(file)
        self.document["name"] = self.arguments.machine
        self.faults = fault_words(self.arguments, self.document)

    def ready(self, line):
        os.write(self.arguments.ready_fd, (line + "\n").encode())
        os.close(self.arguments.ready_fd)

    def start(self):
        self.load()
        if "start-crashes" in self.faults:
            os.abort()
        if "start-hangs" in self.faults:
            signal.pause()
        if "start-garbage" in self.faults:
            self.ready("\x01 what?")
            return False
        kernel = self.document.get("kernel", {}).get("path", "")
        if kernel.startswith("/missing") or "start-fails" in self.faults:
            self.ready(json.dumps({"error": {"code": "not_found", "message": f"open '{kernel}': no such file"}}))
            return False
        self.listen(f"vmm-{self.arguments.instance}.sock", socket.SOCK_SEQPACKET, self.accept_control)
        if self.role == "owner":
            if "no-record" not in self.faults:
                self.record = Record.create(self.document.get("id", NO_ID), self.instance)
            self.listen_consoles()
        else:
            incoming = socket.socket(fileno=self.arguments.incoming_fd)
            self.selector.register(incoming, selectors.EVENT_READ, lambda: self.serve_incoming(incoming))
        self.ready(json.dumps({"ok": True}))
        return True

    def listen(self, name, kind, accept):
        path = os.path.join(self.directory, name)
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(path + ".new")
        os.chmod(path + ".new", 0o600)
        listener.listen(16)
        os.rename(path + ".new", path)
        self.listeners.append((path, listener))
        self.selector.register(listener, selectors.EVENT_READ, lambda: accept(listener))

    def listen_consoles(self):
        for port in ("serial", "virtio"):
            self.listen(f"console-{port}.sock", socket.SOCK_STREAM,
                        lambda listener, port=port: self.accept_console(listener, port))

    # -- consoles: whatever is typed comes back in capitals ------------------------------------------------------

    def accept_console(self, listener, port):
        client, _ = listener.accept()
        client.sendall(f"{port} of {self.arguments.machine}, epoch {self.epoch}\n".encode())
        self.selector.register(client, selectors.EVENT_READ, lambda: self.serve_console(client))

    def serve_console(self, client):
        data = client.recv(4096)
        if not data:
            self.selector.unregister(client)
            client.close()
            return
        client.sendall(data.upper())
        if b"poweroff" in data:
            self.stop("powered_off")

    @property
    def epoch(self):
        return self.record.read()[1] if self.record else 0

    # -- control ---------------------------------------------------------------------------------------------

    def accept_control(self, listener):
        client, _ = listener.accept()
        self.selector.register(client, selectors.EVENT_READ, lambda: self.serve_control(client))

    def serve_control(self, client):
        try:
            data, ancillary, _, _ = client.recvmsg(65536, socket.CMSG_SPACE(64))
        except ConnectionResetError:
            data, ancillary = b"", []
        if not data:
            self.selector.unregister(client)
            if client in self.subscribers:
                self.subscribers.remove(client)
            client.close()
            return
        descriptors = [int.from_bytes(item[:4], sys.byteorder) for _, _, item in ancillary]
        request = json.loads(data)
        method = getattr(self, "do_" + request["method"], None)
        if f"hang-on-{request['method']}" in self.faults:
            signal.pause()
        if f"crash-on-{request['method']}" in self.faults:
            os.kill(os.getpid(), signal.SIGKILL)
        if f"garbage-on-{request['method']}" in self.faults:
            client.send(b"\xff{{{")
            return
        if method is None:
            self.fail(client, request["id"], "not_found", "there is no such method")
            return
        if method == self.do_owner_record and self.record:
            self.send(client, {"id": request["id"], "result": {"machine_id": self.document.get("id", NO_ID)}},
                      [self.record.descriptor])
            return
        result = method(client, request, descriptors)
        if result is not None:
            self.answer(client, request["id"], result)

    @staticmethod
    def send(client, message, descriptors=()):
        """A godwitd may have gone with its questions unanswered."""
        try:
            socket.send_fds(client, [json.dumps(message).encode()], descriptors)
        except OSError:
            pass

    def answer(self, client, number, result):
        self.send(client, {"id": number, "result": result})

    def fail(self, client, number, code, message):
        self.send(client, {"id": number, "error": {"code": code, "message": message}})

    def broadcast(self, event):
        for client in list(self.subscribers):
            try:
                client.send(json.dumps(event).encode())
            except OSError:
                self.subscribers.remove(client)

    def do_status(self, _client, _request, _descriptors):
        return {"name": self.arguments.machine, "id": self.document.get("id", ""), "role": self.role,
                "state": self.state, "pid": os.getpid(), "instance": self.arguments.instance,
                "build_id": BUILD_ID, "version": "0", "epoch": self.epoch,
                "uptime_s": int(time.monotonic() - self.started)}

    def do_owner_record(self, client, request, _descriptors):
        self.fail(client, request["id"], "not_found", "there is no record yet")

    def do_info(self, client, request, descriptors):
        return self.do_status(client, request, descriptors) | {
            "spec": self.document, "statistics": {"exits": 7},
            "consoles": {port: os.path.join(self.directory, f"console-{port}.sock") for port in ("serial", "virtio")}}

    def do_plan(self, client, request, descriptors):
        return self.do_status(client, request, descriptors) | {
            "blockers": ["its RAM cannot change hands"] if "blocked" in self.faults else [],
            "carriers": [{"resource": "memory", "carrier": "pointer"}],
            "cpu_us": 500 if "idle" in self.faults else 5000, "uptime_us": 10000}

    def do_subscribe(self, client, _request, _descriptors):
        self.subscribers.append(client)
        return {}

    def set_state(self, state):
        self.state = state
        self.broadcast({"event": "state", "state": state})
        return {}

    def do_pause(self, *_):
        return self.set_state("paused")

    def do_resume(self, *_):
        return self.set_state("running")

    def do_set_balloon(self, _client, request, _descriptors):
        return {"bytes": request["params"]["bytes"]}

    def do_refresh_disk(self, client, request, _descriptors):
        if request["params"]["disk"] != "disk0":
            self.fail(client, request["id"], "not_found", "there is no such disk")
            return None
        return {}

    def do_stop(self, client, request, _descriptors):
        if request["params"].get("force"):
            self.answer(client, request["id"], {})
            self.stop("killed")
        elif "deaf" not in self.faults:
            self.answer(client, request["id"], {})
            self.stop("powered_off")
        else:
            return {}
        return None

    def do_snapshot(self, _client, request, _descriptors):
        directory = request["params"]["directory"]
        os.makedirs(directory)
        with open(os.path.join(directory, "machine.json"), "w", encoding="utf-8") as file:
            json.dump(self.document, file)
        return {"operation": "snapshot", "machine": self.arguments.machine, "directory": directory, "ram_bytes": 1,
                "written_bytes": 1, "state_bytes": 1}

    def stop(self, reason):
        self.state = "stopped"
        self.broadcast({"event": "stopped", "reason": reason, "detail": ""})
        self.exit_code = 0

    # -- exchange, source ----------------------------------------------------------------------------------------

    def do_exchange(self, client, request, descriptors):
        peer = socket.socket(fileno=descriptors[0])
        if "slow-death-on-exchange" in self.faults:
            client.shutdown(socket.SHUT_RDWR)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass  # Until the successor has ended.
            time.sleep(0.3)  # And everybody has seen it.
            os.kill(os.getpid(), signal.SIGKILL)
        self.exchange = {"peer": peer, "client": client, "id": request["id"], "step": "prepare",
                         "deadline": time.monotonic() + request["params"]["deadline_ms"] / 1000}
        self.selector.register(peer, selectors.EVENT_READ, self.serve_successor)
        self.broadcast({"event": "exchange", "phase": "prepare"})
        self.offered_epoch = self.epoch
        socket.send_fds(peer, [json.dumps({"offer": self.document}).encode()], [self.record.descriptor])

    def do_cancel(self, *_):
        if self.exchange:
            self.end_exchange("rolled_back", "cancelled")
        return {"job": "exchange"}

    def serve_successor(self):
        try:
            data = self.exchange["peer"].recv(65536)
        except ConnectionResetError:
            data = b""
        if data == b"built":
            for phase in ("pause", "commit"):
                self.broadcast({"event": "exchange", "phase": phase})
            self.exchange["step"] = "commit"
            self.exchange["peer"].send(b"commit")
            if "crash-after-commit" in self.faults:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang-after-commit" in self.faults:
                signal.pause()
        elif data == b"running":
            self.end_exchange("done", None)
        else:
            self.end_exchange("rolled_back", "the successor went away")

    def end_exchange(self, outcome, reason):
        if outcome == "rolled_back":
            self.record.write(self.instance, self.offered_epoch + 1)
        exchange, self.exchange = self.exchange, None
        self.selector.unregister(exchange["peer"])
        exchange["peer"].close()
        report = {"operation": "exchange", "machine": self.arguments.machine, "outcome": outcome,
                  "build_ids": [BUILD_ID, "new"], "epochs": [self.offered_epoch, self.epoch],
                  "phases_us": {}, "blackout_us": 1234 if outcome == "done" else -1, "guest_bytes_copied": 0}
        if outcome != "done":
            report |= {"failed_step": exchange["step"], "side": "destination", "reason": reason}
        self.answer(exchange["client"], exchange["id"], report)
        if outcome == "done":
            self.role = "retired"
            if "lingers" not in self.faults:
                self.exit_code = 0

    # -- exchange, destination ----------------------------------------------------------------------------------

    def serve_incoming(self, source):
        data, descriptors, _, _ = socket.recv_fds(source, 65536, 1)
        if not data:
            self.exit_code = 1
        elif data == b"commit":
            if "hang-on-commit" in self.faults:
                signal.pause()
            self.record.write(self.instance, self.offered_epoch + 1)
            self.role, self.state = "owner", "running"
            self.listen_consoles()
            self.set_state("running")
            try:
                source.send(b"running")
            except OSError:
                pass
            self.selector.unregister(source)
        else:
            offer = json.loads(data)
            if "crash-on-offer" in self.faults:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "hang-on-offer" in self.faults:
                signal.pause()
            if "silent-on-offer" in self.faults:
                return
            self.document, self.record = offer["offer"], Record(descriptors[0])
            self.offered_epoch = self.epoch
            source.send(b"built")

    # -- loop --------------------------------------------------------------------------------------------------

    def run(self):
        if not self.start():
            return 1
        while self.exit_code is None:
            patience = None
            if self.exchange:
                patience = max(0.0, self.exchange["deadline"] - time.monotonic())
            ready = self.selector.select(patience)
            for key, _ in ready:
                key.data()
            if not ready and self.exchange and time.monotonic() >= self.exchange["deadline"]:
                self.end_exchange("rolled_back", "the successor was too slow")
        for path, listener in self.listeners:
            if self.role != "retired" and os.path.exists(path):
                os.unlink(path)
            listener.close()
        return self.exit_code


def describe():
    """What --describe prints."""
    words = os.path.basename(sys.argv[0]).split(".")[1:]
    if "describes-nothing" in words:
        return
    print(json.dumps({"program": "godwit-vmm", "version": "0", "build_id": BUILD_ID, "handover_protocol": 1,
                      "sections": [{"name": "vcpu", "version": 1}], "cpuid": []}))


def main():
    if sys.argv[1:] == ["--describe"]:
        describe()
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--machine", required=True)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--spec")
    parser.add_argument("--restore")
    parser.add_argument("--incoming-fd", type=int)
    parser.add_argument("--copy-ram", action="store_true")
    sys.exit(FakeVmm(parser.parse_args()).run())


if __name__ == "__main__":
    main()
