"""A device without hardware: its entities are buffers and a thread each, which carries out
the commands and, between two of them, a slice of the first job.
"""

import collections
import threading
import time

import backend_pb2 as pb
from packed import *

CREDITS, ENTITIES, MEMORY = 64, 1024, 256 << 20  # what the device declares
EVENTS_KEPT, ENDED_KEPT, LANES = 16384, 65536, 1 << 18
FORMAT, ECHO = "conformance", 1024
SLICE = 0.002  # seconds of a job between two looks at the commands


class Session:
    """One stream. over and error change under the device's lock."""

    def __init__(self, number):
        self.number, self.sent, self.sampled = number, 0, 0.0
        self.over, self.error = False, None


class Device:
    """What one device has; changed is the lock of all of it, and tells of every change."""

    def __init__(self, spec, log):
        self.spec, self.log = spec, log
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.session, self.current = 0, None
        self.entities, self.ended = {}, collections.OrderedDict()
        self.events, self.acked = [], 0  # events[0] has the number acked + 1
        self.kernels, self.uploads = {}, {}  # digest: whether it is loaded

    def describe(self):
        return pb.DeviceDescription(
            name=self.spec.name, engine=self.spec.engine, granularity="workgroup", formats=[FORMAT],
            credits=CREDITS, entities_max=ENTITIES, memory_max=MEMORY, saves_images=True)

    def attach(self, m):
        """Makes a new session the present one and says what is held."""
        with self.changed:
            self.fresh(m.session)
            acked = self.ack(m.acked)
            if self.current:
                self.end(self.current, Refusal("stale", f"session {self.session} was replaced by {m.session}"))
            s = self.current = Session(m.session)
            self.session, s.sent = m.session, acked
            held = [pb.HeldEntity(entity=e.id, epoch=e.epoch, applied=e.applied) for e in self.entities.values()]
            return s, pb.DeviceOpened(description=self.describe(), held=held, acked=acked)

    def fresh(self, number):
        if number == 0 or number < self.session:
            raise Refusal("stale", f"session {number}, {self.session} was seen")

    def end(self, session, error=None):
        with self.changed:
            if not session.over:
                session.over, session.error = True, error
            if self.current is session:
                self.current = None
            self.changed.notify_all()

    def ack(self, number):
        if number > self.acked + len(self.events):
            raise Refusal("invalid", f"event {number} was never numbered")
        if number > self.acked:
            del self.events[:number - self.acked]
            self.acked = number
            self.changed.notify_all()
        return self.acked

    def receive(self, session, m):
        """Takes one message of a session, and never waits for work."""
        if m.HasField("open"):
            raise Refusal("invalid", "session opened twice")
        commands = decode_commands(m.commands) if m.commands else []
        with self.changed:
            if session is not self.current:
                raise Refusal("stale", "session was replaced")
            self.ack(m.ack)
            for c in commands:
                self.take(c)
            self.changed.notify_all()

    def take(self, c):
        e = self.entities.get(c.entity)
        if e is None:
            epoch, applied = self.ended.get(c.entity, (0, 0))
            if c.seq <= applied or c.epoch <= epoch and c.kind != DESTROY:
                return
            if len(self.entities) >= LANES:
                raise Refusal("full", "entities")
            e = self.entities[c.entity] = Entity(self, c.entity, over=epoch)
        if c.seq <= e.applied or c.epoch < e.epoch:
            return
        if len(e.commands) >= 2 * CREDITS + 256:
            raise Refusal("full", f"commands of entity {e.id}")
        e.applied, e.epoch = c.seq, c.epoch
        e.commands.append(c)

    def saving(self, t):
        """Queues a GetImage behind the commands of its entity."""
        with self.changed:
            e = self.entities.get(t.entity)
            if e is None:
                raise Refusal("not-found", f"there is no entity {t.entity}")
            if t.epoch < e.epoch:
                raise Refusal("stale", f"epoch {t.epoch} of entity {t.entity}")
            saving = Saving(t.epoch)
            e.commands.append(saving)
            self.changed.notify_all()
            return saving

    def bury(self, e):
        del self.entities[e.id]
        self.ended[e.id] = (e.over, e.applied)
        while len(self.ended) > ENDED_KEPT:
            self.ended.popitem(last=False)

    def report(self, kind, **fields):
        self.events.append(pack_event(kind, **fields))
        self.changed.notify_all()

    def next(self, session):
        """Waits for what a session is to be sent; None when it is over."""
        with self.changed:
            while not session.over:
                m, batch, size = pb.SessionReply(), [], 0
                session.sent = max(session.sent, self.acked)
                for e in self.events[session.sent - self.acked:][:BATCH]:
                    batch.append(e)
                    size += len(e)
                    if size >= BATCH_BYTES:
                        break
                if batch:
                    m.events = uvarint(len(batch)) + uvarint(session.sent + 1) + b"".join(batch)
                    session.sent += len(batch)
                samples = [e.sample() for e in self.entities.values() if e.executing() and not e.live.suspended]
                if samples and time.monotonic() - session.sampled >= 0.1:
                    session.sampled = time.monotonic()
                    m.progress = uvarint(len(samples[:BATCH])) + uvarint(0) + b"".join(samples[:BATCH])
                if m.events or m.progress:
                    return m
                self.changed.wait(0.1 if samples else None)
        return None


class Life:
    """An entity that exists, in one epoch. credits are those of the ring."""

    def __init__(self, epoch, buffers):
        self.epoch, self.buffers, self.ring, self.credits = epoch, buffers, [], 0
        self.suspended = self.lost = False


class Saving:
    """A GetImage in the queue of its entity; life is set when it may read."""

    kind = SAVE

    def __init__(self, epoch):
        self.epoch, self.life, self.refusal, self.over = epoch, None, None, False


class Job:
    def __init__(self, c, step):
        self.id, self.spec, self.step = c.job, c.spec, step
        self.done, self.executed, self.time, self.started = c.first, 0, 0, False

    def usage(self):
        return {"job": self.id, "done": self.done, "executed": self.executed, "time": self.time}


class Entity:
    """What was taken for one entity, and its thread. Only that touches live and over."""

    def __init__(self, device, id, over):
        self.device, self.id, self.over = device, id, over
        self.applied = self.epoch = 0
        self.commands, self.live, self.waits = collections.deque(), None, None
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        d = self.device
        with d.changed:
            while True:
                c = self.ready()
                if c:
                    self.waits = None
                    self.carry_out(c)
                    # It counts as waiting until its answer is there.
                    self.commands.popleft()
                elif self.live and self.live.ring and not self.live.suspended:
                    self.slice(self.live.ring[0])
                elif not self.commands and not self.live:
                    d.bury(self)
                    return
                else:
                    d.changed.wait(self.waits and max(self.waits - time.monotonic(), 0))

    def ready(self):
        """The first command, unless it has to wait; the jobs go on meanwhile."""
        d = self.device
        if not self.commands or len(d.events) >= EVENTS_KEPT:
            return None
        c = self.commands[0]
        bound = 0
        if c.kind == CREATE and self.may_create(c) and (self.id, c.epoch) not in d.uploads:
            bound = 60
        if c.kind == RUN and self.here(c) and FORMAT in c.spec.kernels and c.spec.kernels[FORMAT] not in d.kernels:
            bound = 30
        if bound and self.waits is None:
            self.waits = time.monotonic() + bound
        return None if bound and time.monotonic() < self.waits else c

    def here(self, c):
        return self.live and self.live.epoch == c.epoch and not self.live.lost

    def may_create(self, c):
        return c.epoch > self.over and not (self.live and self.live.epoch >= c.epoch)

    def carry_out(self, c):
        try:
            if c.kind == CREATE:
                self.create(c)
            elif c.kind == DESTROY:
                self.destroy(c)
            elif c.kind == SAVE:
                self.save(c)
            elif not self.here(c):
                if c.epoch > self.over and not (self.live and self.live.epoch >= c.epoch):
                    raise Refusal("not-found", f"entity {self.id} is not there in epoch {c.epoch}")
            elif c.kind == RUN:
                self.run(c)
            elif c.kind == CANCEL:
                self.cancel(c)
            else:
                self.message(c)
        except Refusal as e:
            self.report(REFUSED, c.epoch, command=c.seq, job=c.job, cause=e.cause, error=str(e))

    def report(self, kind, epoch, **fields):
        self.device.report(kind, entity=self.id, epoch=epoch, **fields)

    def create(self, c):
        d = self.device
        if not self.may_create(c):
            raise Refusal("exists", f"entity {self.id} is or was there in epoch {c.epoch}")
        self.live = None
        self.over = c.epoch  # unless it succeeds
        if sum(e.live is not None for e in d.entities.values()) >= ENTITIES:
            raise Refusal("full", "entities of the device")
        upload = d.uploads.get((self.id, c.epoch))
        if upload is None:
            raise Refusal("deadline", "its image did not come", IMAGE)
        buffers = upload.claim()
        if isinstance(buffers, Refusal):
            raise Refusal(buffers.reason, str(buffers), IMAGE)
        self.live, self.over = Life(c.epoch, buffers), c.epoch - 1
        self.report(APPLIED, c.epoch, command=c.seq)

    def destroy(self, c):
        if self.live and self.live.epoch > c.epoch:
            return
        last = {}
        if self.executing():
            last = self.live.ring[0].usage()
        self.live, self.over = None, max(self.over, c.epoch)
        self.report(DESTROYED, c.epoch, command=c.seq, **last)

    def run(self, c):
        if not self.device.kernels.get(c.spec.kernels.get(FORMAT)):
            raise Refusal("invalid", "no kernel of the format conformance is loaded", KERNEL)
        if self.live.credits + c.spec.credits > CREDITS:
            raise Refusal("full", "the ring")
        job = Job(c, bind(c.spec, self.live.buffers))
        self.live.ring.append(job)
        self.live.credits += c.spec.credits

    def cancel(self, c):
        for job in self.live.ring:
            if job.id == c.job:
                self.leave(job)
                self.report(CANCELLED, c.epoch, **job.usage())
                return

    def leave(self, job):
        self.live.ring.remove(job)
        self.live.credits -= job.spec.credits

    def message(self, c):
        if c.message in (SUSPEND, RESUME):
            # Nothing executes between two commands: to forbid it is all.
            self.live.suspended = c.message == SUSPEND
            cost = time.monotonic_ns() - c.received if self.live.suspended else 0
            self.report(DONE, c.epoch, command=c.seq, cost=cost)
        elif c.message == ECHO:
            self.report(DONE, c.epoch, command=c.seq, reply=c.payload[::-1])
        elif c.message in (3, 4):  # set properties: all are equal here; barrier: all before it was done
            self.report(DONE, c.epoch, command=c.seq)
        else:
            raise Refusal("unsupported", f"message {c.message}")

    def save(self, c):
        """Lets a GetImage read the entity; nothing else happens to it meanwhile."""
        if not self.live or self.live.epoch != c.epoch:
            c.refusal = Refusal("stale", f"entity {self.id} is not there in epoch {c.epoch}")
        elif self.live.lost:
            c.refusal = Refusal("gone", "the state of the entity was lost")
        elif not self.live.suspended:
            c.refusal = Refusal("invalid", "the entity is not suspended")
        else:
            c.life = self.live
        self.device.changed.notify_all()
        self.device.changed.wait_for(lambda: c.over or c.refusal)

    def executing(self):
        return self.live and self.live.ring and self.live.ring[0].started

    def sample(self):
        return pack_event(PROGRESS, entity=self.id, epoch=self.live.epoch, **self.live.ring[0].usage())

    def slice(self, job):
        """Executes workgroups of a job for a moment, without the lock."""
        d, total, fault = self.device, job.spec.workgroups(), None
        if not job.started and job.done < total:
            job.started = True
            self.report(STARTED, self.live.epoch, job=job.id)
        begun, done = time.monotonic(), job.done
        d.changed.release()
        try:
            while done < total and time.monotonic() - begun < SLICE:
                job.step(done)
                done += 1
        except IndexError:
            fault = f"workgroup {done} left its buffer, or was told to fault"
        finally:
            took = int((time.monotonic() - begun) * 1e9)
            d.changed.acquire()
        job.executed += done - job.done
        job.done, job.time = done, job.time + took
        if fault:
            self.live.lost, self.live.ring = True, []
            self.report(LOST, self.live.epoch, guilty=True, cause=TRAP, error=fault, **job.usage())
        elif done == total:
            self.leave(job)
            self.report(COMPLETED, self.live.epoch, **job.usage())


# ---- the kernel

KINDS = {"mix": [1, 2], "slow": [1, 2, 2], "trap": [1, 2, 2], "args": [1, 2, 3, 4, 5, 6, 7], "sum": [1, 1]}


def bind(spec, buffers):
    """Returns the function that executes workgroup w of a job."""
    if KINDS.get(spec.entry) != [kind for kind, _ in spec.args]:
        raise Refusal("invalid", f"there is no entry {spec.entry} with these arguments", KERNEL)
    for kind, value in spec.args:
        if kind == 1 and value not in buffers:
            raise Refusal("not-found", f"there is no buffer {value}")
    cells = cells_of(buffers[spec.args[0][1]])
    values = [value for _, value in spec.args]

    def mix(w):
        cells[w] = (cells[w] * 33 + values[1] + w) & 0xFFFFFFFF

    def slow(w):
        for _ in range(values[2]):
            pass
        mix(w)

    def trap(w):
        if w == values[2]:
            raise IndexError
        mix(w)

    def args(w):
        if w == 0:
            words = b"".join(v.to_bytes(8, "little") for v in values[1:] + spec.grid + spec.group)
            cells[len(words) // 4 - 1]  # it has room, or this is a fault
            cells[:len(words) // 4] = memoryview(words).cast("I")

    def total(w):
        out[w] = (out[w] + cells[w]) & 0xFFFFFFFF

    if spec.entry == "sum":
        out = cells_of(buffers[spec.args[1][1]])
    return {"mix": mix, "slow": slow, "trap": trap, "args": args, "sum": total}[spec.entry]


def cells_of(buffer):
    return memoryview(buffer)[:len(buffer) // 4 * 4].cast("I")
