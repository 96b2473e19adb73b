#!/usr/bin/env python3
"""A gpuwm plugin in Python, made from docs/plugin-protocol.md alone.

It serves the kernel format "conformance", and all that a plugin can be asked for: jobs in
order, cancel, properties, a message of its own, suspend, images; and what every plugin owes:
sessions, epochs, events that are kept until they are acknowledged, logs, the lease.
This file is the process and the
service; device.py has what the commands do, images.py the images, packed.py the bytes.

It needs the module backend_pb2 beside it: protoc -I api/v1 --python_out=DIR backend.proto
"""

import collections
import hashlib
import os
import re
import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import any_pb2

import backend_pb2 as pb
from device import ECHO, FORMAT, Device
from images import Upload, patiently, send
from packed import BATCH, MESSAGE_BYTES, NAME, Refusal, blob, check_buffers, uvarint

CODE, LINES_KEPT = b"gpuwm conformance 1\n", 4096

REASONS = {  # reason: code, retryable
    "full": (grpc.StatusCode.RESOURCE_EXHAUSTED, True),
    "not-found": (grpc.StatusCode.NOT_FOUND, False),
    "exists": (grpc.StatusCode.ALREADY_EXISTS, False),
    "invalid": (grpc.StatusCode.INVALID_ARGUMENT, False),
    "unsupported": (grpc.StatusCode.UNIMPLEMENTED, False),
    "stale": (grpc.StatusCode.ABORTED, False),
    "corrupt": (grpc.StatusCode.DATA_LOSS, False),
    "gone": (grpc.StatusCode.UNAVAILABLE, True),
    "deadline": (grpc.StatusCode.DEADLINE_EXCEEDED, True),
    "busy": (grpc.StatusCode.ABORTED, True),
}


def abort(context, error, epoch=0):
    """Ends a call with a status that carries an ErrorDetail."""
    code, retryable = REASONS[error.reason]
    text = str(error)[:1024]
    detail = any_pb2.Any()
    detail.Pack(pb.ErrorDetail(reason=error.reason, retryable=retryable, epoch=epoch))
    status = b"\x08" + uvarint(code.value[0]) + b"\x12" + blob(text.encode()) + b"\x1a" + blob(detail.SerializeToString())
    context.set_trailing_metadata((("grpc-status-details-bin", status),))
    context.abort(code, text)


# ---- the service

class Log:
    """The newest lines, numbered."""

    LEVELS = ["trace", "debug", "info", "warn", "error"]

    def __init__(self, level):
        self.least = self.LEVELS.index(level) if level in self.LEVELS else 2
        self.changed, self.lines, self.last = threading.Condition(), collections.deque(maxlen=LINES_KEPT), 0

    def line(self, level, text):
        if self.LEVELS.index(level) >= self.least:
            with self.changed:
                self.last += 1
                text = text.replace("\n", " ").encode()[:8192].decode(errors="ignore")
                self.lines.append(pb.LogLine(number=self.last, time=time.time_ns(), level=level, logger="python", text=text))
                self.changed.notify_all()


class Service:
    def __init__(self, instance, lease, log):
        self.instance, self.lease, self.log = instance, lease, log
        self.lock = threading.Condition()
        self.devices, self.hosts, self.closing = {}, 0, False
        self.deadline = time.monotonic() + max(lease, 30)

    def wait(self):
        """Returns when the process should end."""
        with self.lock:
            while not self.closing:
                left = self.deadline - time.monotonic()
                if self.hosts == 0 and left <= 0:
                    self.log.line("info", "lease ran out")
                    break
                self.lock.wait(left if self.hosts == 0 else None)
        self.close()

    def close(self):
        with self.lock:
            self.closing = True
            self.lock.notify_all()
            devices = list(self.devices.values())
        for d in devices:
            with d.changed:
                if d.current:
                    d.end(d.current, Refusal("gone", "instance is ending"))
        with self.log.changed:
            self.log.changed.notify_all()

    def enter(self):
        with self.lock:
            if self.closing:
                raise Refusal("gone", "instance is ending")
            self.hosts += 1

    def leave(self):
        with self.lock:
            self.hosts -= 1
            self.deadline = time.monotonic() + self.lease
            self.lock.notify_all()

    def device(self, name):
        d = self.devices.get(name)
        if d is None:
            raise Refusal("not-found", f"device {name[:64]} is not open")
        return d

    def open(self, spec):
        with self.lock:
            d = self.devices.get(spec.name)
            if d is None:
                if not 1 <= len(spec.name.encode()) <= NAME or spec.engine not in ("", "python") or spec.options:
                    raise Refusal("invalid", "specification of the device")
                if len(self.devices) >= 256:
                    raise Refusal("full", "devices of the instance")
                d = self.devices[spec.name] = Device(spec, self.log)
                self.log.line("info", f"device {spec.name} opened")
            if d.spec != spec:
                raise Refusal("exists", "device is open with another specification")
            return d

    def Hello(self, request, context):
        return pb.HelloReply(
            instance=self.instance, protocol=1, name="python", version="1", engines=["python"], level=5,
            config_schema=b'{"type": "object", "additionalProperties": false}',
            messages=[pb.MessageType(kind=ECHO, name="echo", doc="Replies with its payload, the last byte first.")])

    def Health(self, request, context):
        return pb.HealthReply(pending=sum(len(e.commands) for d in list(self.devices.values()) for e in list(d.entities.values())))

    def Session(self, requests, context):
        try:
            first = next(requests, pb.SessionRequest())
            if first.open.session == 0:
                raise Refusal("invalid", "session without a number")
            self.enter()
        except Refusal as e:
            abort(context, e)
        try:
            d = self.open(first.open.spec)
            s, opened = d.attach(first.open)
            self.log.line("info", f"session {s.number} of device {d.spec.name} opened")
            context.add_callback(lambda: d.end(s))
            threading.Thread(target=self.receive, args=(d, s, requests), daemon=True).start()
            yield pb.SessionReply(opened=opened)
            while m := d.next(s):
                yield m
            if s.error:
                raise s.error
        except Refusal as e:
            abort(context, e)
        finally:
            self.leave()

    def receive(self, d, s, requests):
        try:
            for m in requests:
                d.receive(s, m)
            d.end(s)
        except Refusal as e:
            d.end(s, e)
        except Exception:  # the stream broke
            d.end(s)

    def Logs(self, request, context):
        try:
            self.enter()
        except Refusal as e:
            abort(context, e)
        over = threading.Event()

        def end():
            over.set()
            with self.log.changed:
                self.log.changed.notify_all()

        try:
            context.add_callback(end)
            after = request.after
            while not over.is_set():
                with self.log.changed:
                    lines = [line for line in self.log.lines if line.number > after][:BATCH]
                    if not lines and self.closing:
                        break
                    if not lines:
                        self.log.changed.wait()
                        continue
                after = lines[-1].number
                yield pb.LogsReply(lines=lines)
            if self.closing:
                abort(context, Refusal("gone", "instance is ending"))
        finally:
            self.leave()

    def PutKernel(self, requests, context):
        try:
            first = next(requests, pb.PutKernelRequest())
            h, code = first.header, bytearray(first.code)
            if len(h.digest) != 32 or h.size > 64 << 20 or len(h.format.encode()) > NAME:
                raise Refusal("invalid", "header of the kernel")
            d = self.device(h.device)
            with d.changed:
                d.fresh(h.session)
            while len(code) < h.size:
                piece = next(requests, pb.PutKernelRequest()).code
                if not piece:
                    raise Refusal("corrupt", "kernel is cut off")
                code += piece
            if len(code) != h.size or hashlib.sha256(code).digest() != h.digest or next(requests, None) is not None:
                raise Refusal("corrupt", "code of the kernel")
            loads = h.format == FORMAT and code == CODE
            with d.changed:
                if h.digest not in d.kernels and len(d.kernels) >= 16384:
                    raise Refusal("full", "kernels of the device")
                d.kernels[h.digest] = loads
                d.changed.notify_all()
            if not loads:
                raise Refusal("invalid", "this is no kernel of the format conformance")
            return pb.PutKernelReply()
        except Refusal as e:
            abort(context, e)

    def PutImage(self, requests, context):
        first = next(requests, pb.PutImageRequest())
        t, h = first.target, first.header
        try:
            d = self.target(t)
            if h.entity != t.entity or h.version != 1 or len(h.private) > 8 << 20:
                raise Refusal("invalid", "header of the image")
            check_buffers(h.buffers)
            upload = self.offer(d, t, h)
            if upload:
                context.add_callback(lambda: upload.finish(Refusal("corrupt", "image breaks off")))
                self.transfer(d, t, upload, requests)
            return pb.PutImageReply()
        except Refusal as e:
            abort(context, e, t.epoch)

    def target(self, t):
        if t.entity == 0 or t.epoch == 0:
            raise Refusal("invalid", "target of the image")
        d = self.device(t.device)
        with d.changed:
            d.fresh(t.session)
        return d

    def offer(self, d, t, header):
        """Lets the create find the image; None when it is not needed any more."""
        key = t.entity, t.epoch
        with d.changed:
            e = d.entities.get(t.entity)
            live = e.live.epoch if e and e.live else 0
            over = e.over if e else d.ended.get(t.entity, (0, 0))[0]
            if live == t.epoch:
                return None
            if t.epoch < live or t.epoch <= over:
                raise Refusal("stale", f"epoch {t.epoch} of entity {t.entity}")
            old = d.uploads.get(key)
            if old and old.claimed:
                raise Refusal("busy", "the image is being read")
            if old:
                old.finish(Refusal("stale", "the image was sent again"))
            elif len(d.uploads) >= 1024:
                raise Refusal("full", "images that wait")
            upload = d.uploads[key] = Upload(d, header)
            d.changed.notify_all()
            return upload

    def transfer(self, d, t, upload, requests):
        try:
            with d.changed:
                upload.moved.wait_for(lambda: upload.claimed or upload.result, timeout=60)
                if not upload.claimed:
                    upload.finish(Refusal("deadline", "no create came for the image"))
            if upload.result is None:
                try:
                    upload.finish(upload.read(patiently(requests)))
                except Refusal as e:
                    upload.finish(e)
            if isinstance(upload.result, Refusal):
                raise upload.result
        finally:
            with d.changed:
                if d.uploads.get((t.entity, t.epoch)) is upload:
                    del d.uploads[t.entity, t.epoch]

    def GetImage(self, requests, context):
        t = next(requests, pb.GetImageRequest()).target
        saving = None
        try:
            d = self.target(t)
            saving = d.saving(t)
            context.add_callback(lambda: self.saved(d, saving))
            with d.changed:
                d.changed.wait_for(lambda: saving.life or saving.refusal or saving.over)
            if saving.refusal:
                raise saving.refusal
            if saving.life:
                yield from send(t.entity, saving.life, patiently(requests))
        except Refusal as e:
            abort(context, e, t.epoch)
        finally:
            if saving:
                self.saved(d, saving)

    def saved(self, d, saving):
        with d.changed:
            saving.over = True
            d.changed.notify_all()

    def Trace(self, request, context):
        try:
            self.device(request.device)
            raise Refusal("unsupported", "this backend keeps no trace")
        except Refusal as e:
            abort(context, e)
        yield

    def Shutdown(self, request, context):
        self.log.line("info", "shutdown requested")
        self.close()
        return pb.ShutdownReply()


# ---- the process

METHODS = {  # name: kind, request, reply
    "Hello": ("unary_unary", pb.HelloRequest, pb.HelloReply),
    "Health": ("unary_unary", pb.HealthRequest, pb.HealthReply),
    "Shutdown": ("unary_unary", pb.ShutdownRequest, pb.ShutdownReply),
    "Session": ("stream_stream", pb.SessionRequest, pb.SessionReply),
    "Logs": ("unary_stream", pb.LogsRequest, pb.LogsReply),
    "Trace": ("unary_stream", pb.TraceRequest, pb.TraceReply),
    "PutKernel": ("stream_unary", pb.PutKernelRequest, pb.PutKernelReply),
    "PutImage": ("stream_unary", pb.PutImageRequest, pb.PutImageReply),
    "GetImage": ("stream_stream", pb.GetImageRequest, pb.GetImageReply),
}


def seconds(duration):
    """Reads a Go duration such as 1m0.5s; a minute when it is none."""
    units = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
    parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", duration)
    return sum(float(n) * units[unit] for n, unit in parts) or 60.0


def main():
    if os.environ.get("GPUWM_PLUGIN_COOKIE") != "gpuwm-backend":
        sys.exit("This is a plugin of gpuwm, which starts it by itself.")
    for s in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT):
        signal.signal(s, signal.SIG_IGN)
    log = Log(os.environ.get("GPUWM_LOG_LEVEL", "info"))
    service = Service(os.environ["GPUWM_INSTANCE"], seconds(os.environ.get("GPUWM_LEASE", "1m")), log)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=service.close).start())
    # A thread for each call that is open: the images that may wait, and room for the others.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1536), options=[
        ("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gpuwm.v1.Backend", {
        name: getattr(grpc, kind + "_rpc_method_handler")(
            getattr(service, name), request_deserializer=request.FromString, response_serializer=reply.SerializeToString)
        for name, (kind, request, reply) in METHODS.items()}),))
    path = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "plugin.sock")
    server.add_insecure_port("unix:" + path)
    server.start()
    os.write(1, f"1|1|unix|{path}|grpc|\n".encode())
    # Nobody may read what is printed from now on.
    for fd in (1, 2):
        os.set_blocking(fd, False)
    service.wait()
    server.stop(1).wait()
    os._exit(0)


if __name__ == "__main__":
    main()
