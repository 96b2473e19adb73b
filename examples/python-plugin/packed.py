"""The packed bytes of the wire contract: commands come in, events go out."""

import dataclasses
import time

from google.protobuf.message import DecodeError

import backend_pb2 as pb

MESSAGE_BYTES, BATCH, BATCH_BYTES, NAME = 16 << 20, 256, 1 << 20, 1024
DURATION = (1 << 63) - 1

APPLIED, REFUSED, STARTED, COMPLETED, CANCELLED, DONE, DESTROYED, LOST, HEALTH, PROGRESS = range(1, 11)
CREATE, RUN, CANCEL, MESSAGE, DESTROY = range(1, 6)
SAVE = 0  # no command: a GetImage waits in the same queue
SUSPEND, RESUME = 1, 2
TRAP, KERNEL, OTHER, IMAGE = 1, 5, 6, 12  # causes


class Refusal(Exception):
    """Why a call or a command is refused."""

    def __init__(self, reason, text, cause=OTHER):
        super().__init__(text)
        self.reason, self.cause = reason, cause


def uvarint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def blob(b):
    return uvarint(len(b)) + b


class Reader:
    """Takes packed bytes apart; whatever does not fit is corrupt."""

    def __init__(self, b):
        self.b, self.at = b, 0

    def take(self, n):
        if n > len(self.b) - self.at:
            raise Refusal("corrupt", "packed bytes are cut off")
        self.at += n
        return self.b[self.at - n:self.at]

    def byte(self, most=255):
        return within(self.take(1)[0], 0, most)

    def uvarint(self, least=0, most=(1 << 64) - 1):
        n = shift = 0
        while True:
            c = self.take(1)[0]
            n |= (c & 0x7F) << shift
            shift += 7
            if c < 0x80:
                return within(n, least, most)
            within(shift, 0, 63)

    def blob(self, most):
        return self.take(self.uvarint(most=most))

    def str(self, most=NAME):
        try:
            return self.blob(most).decode()
        except UnicodeDecodeError:
            raise Refusal("corrupt", "text is not UTF-8") from None

    def end(self):
        within(len(self.b) - self.at, 0, 0)


def within(n, least, most):
    if not least <= n <= most:
        raise Refusal("corrupt", f"{n} is not from {least} to {most}")
    return n


@dataclasses.dataclass
class Command:
    kind: int
    entity: int
    epoch: int
    seq: int
    job: int = 0
    jobseq: int = 0
    first: int = 0
    spec: object = None  # a JobSpec for run, an EntitySpec message for create
    message: int = 0
    payload: bytes = b""
    received: int = dataclasses.field(default_factory=time.monotonic_ns)


@dataclasses.dataclass
class JobSpec:
    kernels: dict
    entry: str
    grid: list
    group: list
    args: list  # (kind, name or bits)
    credits: int

    def workgroups(self):
        return self.grid[0] * self.grid[1] * self.grid[2]


def decode_commands(b):
    r, commands, before, run = Reader(b), [], None, None
    for _ in range(r.uvarint(1, BATCH)):
        head = r.byte()
        kind, flags = head & 0x0F, head & 0xF0
        if flags & 0xE0 and kind != RUN or flags & 0x60 and run is None or flags & 0x10 and before is None:
            raise Refusal("corrupt", "a flag without a meaning")
        if flags & 0x10:
            c = Command(kind, before.entity, before.epoch, within(before.seq + 1, 1, (1 << 64) - 1))
        else:
            c = Command(kind, r.uvarint(1), r.uvarint(1), r.uvarint(1))
        if kind == CREATE:
            r.uvarint()  # the generation is the host's affair
            c.spec = decode_entity(r.blob(MESSAGE_BYTES))
        elif kind == RUN:
            decode_run(r, c, flags, run)
            run = c
        elif kind == CANCEL:
            c.job = r.uvarint(1)
        elif kind == MESSAGE:
            c.message = r.uvarint(1, (1 << 32) - 1)
            r.byte(3), r.uvarint(most=DURATION)  # properties: nothing here depends on them
            c.payload = r.blob(1 << 20)
        else:
            within(kind, DESTROY, DESTROY)
        commands.append(c)
        before = c
    r.end()
    return commands


def decode_run(r, c, flags, last):
    if flags & 0x40:
        c.job, c.jobseq = within(last.job + 1, 1, (1 << 64) - 1), last.jobseq + 1
    else:
        c.job, c.jobseq = r.uvarint(1), r.uvarint()
    if not flags & 0x80:
        c.first = r.uvarint()
        r.uvarint(most=DURATION)
    r.str()
    c.spec = last.spec if flags & 0x20 else decode_job(r)
    within(c.first, 0, c.spec.workgroups())


def decode_job(r):
    kernels = {}
    k = Reader(r.blob(16 * (NAME + 64)))
    for _ in range(k.uvarint(most=16)):
        name = k.str()
        within(int(name in kernels), 0, 0)
        kernels[name] = k.take(32)
    k.end()
    entry = r.str()
    grid, group = ([r.uvarint(1, (1 << 32) - 1) for _ in range(3)] for _ in range(2))
    for g in (grid, group):
        within(g[0] * g[1] * g[2], 1, DURATION)
    args = []
    a = Reader(r.blob(1024 * (NAME + 16)))
    for _ in range(a.uvarint(most=1024)):
        kind = within(a.byte(), 1, 7)
        args.append((kind, a.str() if kind == 1 else a.uvarint()))
    a.end()
    for _ in range(r.uvarint(most=65536)):
        r.uvarint(1)  # the host has waited for these
    r.uvarint(most=DURATION)
    spec = JobSpec(kernels, entry, grid, group, args, r.uvarint(1, (1 << 32) - 1))
    r.byte(1)
    return spec


def decode_entity(b):
    try:
        m = pb.EntitySpec.FromString(bytes(b))
    except DecodeError:
        raise Refusal("corrupt", "specification of an entity") from None
    if not 1 <= len(m.name.encode()) <= NAME or m.mode not in ("compute", "long-running") or len(m.identity) != 32 \
            or m.priority not in ("", "low", "normal", "high") or m.on_failure not in ("", "stop", "continue") \
            or m.checkpoint > DURATION:
        raise Refusal("corrupt", "specification of an entity")
    check_buffers(m.buffers)
    return m


def check_buffers(buffers):
    names = {b.name for b in buffers}
    if len(buffers) > 4096 or len(names) < len(buffers) or any(b.size > 1 << 40 for b in buffers) \
            or not all(1 <= len(n.encode()) <= NAME for n in names):
        raise Refusal("corrupt", "buffers")


def pack_event(kind, entity=0, epoch=0, command=0, job=0, done=0, executed=0, time=0, cost=0, guilty=False, cause=0, error="", reply=b""):
    fields, present = [], 0
    for bit, value in ((0, command), (1, job), (2, done), (3, executed), (4, time), (5, cost)):
        if value:
            present |= 1 << bit
            fields.append(uvarint(value))
    if guilty:
        present |= 1 << 6
    for bit, value in ((7, bytes([cause]) if cause else b""), (8, error and blob(error[:1024].encode())), (9, reply and blob(reply))):
        if value:
            present |= 1 << bit
            fields.append(value)
    return bytes([kind]) + uvarint(present) + uvarint(entity) + uvarint(epoch) + b"".join(fields)
