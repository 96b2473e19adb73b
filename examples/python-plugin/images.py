"""Images on their way in, and out."""

import hashlib
import queue
import threading

import backend_pb2 as pb
from packed import Reader, Refusal, uvarint

MEMORY, CHUNK, WINDOW = 256 << 20, 256 << 10, 16


def pack_name(buffer, index, data):
    """Returns a chunk's name, and whether its bytes have to follow."""
    zero = data.count(0) == len(data)
    name = uvarint(buffer) + uvarint(index) + uvarint(len(data)) + hashlib.sha256(data).digest() + bytes([zero])
    return name, not zero


def send(entity, life, wants):
    """Makes the messages of a GetImage; wants are the answers of the host."""
    jobs = [pb.ImageJob(job=j.id, cursor=j.done, executed=j.executed, executed_time=j.time) for j in life.ring]
    specs = [pb.BufferSpec(name=name, size=len(b)) for name, b in life.buffers.items()]
    yield pb.GetImageReply(header=pb.ImageHeader(version=1, entity=entity, buffers=specs, jobs=jobs, backend="python"))
    chunks = [(i, at) for i, b in enumerate(life.buffers.values()) for at in range(0, len(b), CHUNK)]
    buffers, total = list(life.buffers.values()), hashlib.sha256()
    for first in range(0, len(chunks), WINDOW):
        window = chunks[first:first + WINDOW]
        named = [pack_name(i, at // CHUNK, buffers[i][at:at + CHUNK]) for i, at in window]
        names = b"".join(name for name, _ in named)
        total.update(names)
        yield pb.GetImageReply(names=pb.ChunkNames(refs=uvarint(len(window)) + names))
        want = next(wants, pb.GetImageRequest()).want
        if len(want) != len(window):
            raise Refusal("corrupt", f"answer for {len(want)} of {len(window)} chunks")
        for (i, at), (_, follows), wanted in zip(window, named, want):
            if wanted and follows:
                yield pb.GetImageReply(data=bytes(buffers[i][at:at + CHUNK]))
    yield pb.GetImageReply(trailer=pb.Trailer(chunks=len(chunks), digest=total.digest()))


class Upload:
    """An image on its way in: its call reads, when the create has claimed it."""

    def __init__(self, device, header):
        self.device, self.header = device, header
        self.claimed, self.result = False, None
        self.moved = threading.Condition(device.lock)  # its own: a thousand images may wait

    def claim(self):
        """Called by the create, with the lock; returns the buffers by name, or a Refusal."""
        self.claimed = True
        self.moved.notify_all()
        while self.result is None:
            self.moved.wait()
        return self.result

    def finish(self, result):
        with self.moved:
            if self.result is None:
                self.result = result
            self.moved.notify_all()

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
