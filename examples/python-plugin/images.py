"""Images on their way in."""

import hashlib
import queue
import threading

import backend_pb2 as pb
from packed import Reader, Refusal

MEMORY, CHUNK = 256 << 20, 256 << 10


class Upload:
    """An image on its way in: its call reads, when the create has claimed it."""

    def __init__(self, device, header):
        self.device, self.header = device, header
        self.claimed, self.result = False, None

    def claim(self):
        """Called by the create, with the lock; returns the buffers by name, or a Refusal."""
        self.claimed = True
        self.device.changed.notify_all()
        while self.result is None:
            self.device.changed.wait()
        return self.result

    def finish(self, result):
        with self.device.changed:
            if self.result is None:
                self.result = result
            self.device.changed.notify_all()

    def read(self, messages):
        """Reads all chunks, in order, and checks them."""
        if sum(b.size for b in self.header.buffers) > MEMORY:
            raise Refusal("invalid", f"buffers of more than {MEMORY} bytes")
        buffers = [bytearray(b.size) for b in self.header.buffers]
        total, count = hashlib.sha256(), 0
        for index, buffer in enumerate(buffers):
            for at in range(0, len(buffer), CHUNK):
                m = next(messages, pb.PutImageRequest())
                r = Reader(m.names.refs)
                r.uvarint(1, 1)
                name = r.b[r.at:]
                size = min(CHUNK, len(buffer) - at)
                if (r.uvarint(), r.uvarint(), r.uvarint()) != (index, at // CHUNK, size):
                    raise Refusal("corrupt", f"chunk {at // CHUNK} of buffer {index} is missing")
                digest, zero = r.take(32), r.byte(1)
                r.end()
                data = bytes(size) if zero else m.data
                if len(data) != size or hashlib.sha256(data).digest() != digest:
                    raise Refusal("corrupt", f"bytes of chunk {at // CHUNK} of buffer {index}")
                buffer[at:at + size] = data
                total.update(name)
                count += 1
        trailer = next(messages, pb.PutImageRequest()).trailer
        if trailer.chunks != count or trailer.digest != total.digest():
            raise Refusal("corrupt", "trailer of the image")
        return {b.name: buffer for b, buffer in zip(self.header.buffers, buffers)}


def patiently(requests, seconds=30):
    """Hands on what comes, and gives up when nothing does."""
    inbox = queue.Queue(maxsize=4)

    def pump():
        try:
            for m in requests:
                inbox.put(m)
        except Exception:  # the call ended
            pass
        inbox.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            m = inbox.get(timeout=seconds)
        except queue.Empty:
            raise Refusal("deadline", "image stalled") from None
        if m is None:
            return
        yield m
