package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const leaseOfTests = time.Hour

// bubble runs f with a fresh rig under a fake clock.
func bubble(t *testing.T, f func(*testing.T, *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r, done := newRig(t)
		defer done()
		f(t, r)
	})
}

func TestRepeatedCommandsActOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		run := runCommand(1, 1, 2, 7, memory.Instant)
		l.send(run, run, createCommand(1, 1, 1), message(1, 1, 3, core.MessageSuspend), run)
		l.expect(core.EventStarted)
		l.expect(core.EventCompleted)
		l.expect(core.EventMessageDone)
		synctest.Wait()
		if want := []string{"1 create", "1 run 7", "1 suspend"}; !slices.Equal(r.calls.all(), want) {
			t.Errorf("calls %q, want %q", r.calls.all(), want)
		}
	})
}

func TestDestroyedEntityStaysGone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		l.send(command(core.CommandDestroy, 1, 1, 2, 0))
		l.expect(core.EventDestroyed)
		synctest.Wait()
		if n := r.server.Lanes("d0"); n != 0 {
			t.Errorf("%d lanes after destroy", n)
		}
		// All of it again, and one command that was on its way.
		l.send(createCommand(1, 1, 1), command(core.CommandDestroy, 1, 1, 2, 0), runCommand(1, 1, 3, 7, memory.Instant))
		// A destroy of what is not there is answered.
		l.send(command(core.CommandDestroy, 1, 1, 4, 0))
		if e := l.expect(core.EventDestroyed); e.Command != 4 {
			t.Errorf("event %+v", e)
		}
		mustBe(t, "image of an epoch that is over", r.putImage(1, 1, []byte{1, 2, 3}, nil), core.ErrStale)
		if n := strings.Count(strings.Join(r.calls.all(), ","), "create"); n != 1 {
			t.Errorf("created %d times", n)
		}
		l.create(1, 2, 5)
	})
}

// TestImageOfAnEndedEpochIsStale: also while the entity's next life waits for its
// own image, so that nobody remembers the first one yet.
func TestImageOfAnEndedEpochIsStale(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		l.send(command(core.CommandDestroy, 1, 1, 2, 0), createCommand(1, 2, 3))
		l.expect(core.EventDestroyed)
		mustBe(t, "image of an epoch that is over", r.putImage(1, 1, []byte{1, 2, 3}, nil), core.ErrStale)
		if err := r.putImage(1, 2, []byte{1, 2, 3}, nil); err != nil {
			t.Errorf("image of the next epoch: %v", err)
		}
		l.expect(core.EventApplied)
	})
}

func TestNewerEpochReplacesTheOlder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		l.create(1, 2, 2)
		want := []string{"1 create", "1 destroy", "1 create"}
		if !slices.Equal(r.calls.all(), want) {
			t.Errorf("calls %q, want %q", r.calls.all(), want)
		}
		l.send(runCommand(1, 1, 3, 7, memory.Instant), runCommand(1, 2, 4, 8, memory.Instant))
		if e := l.expect(core.EventStarted); e.Job != 8 || e.Epoch != 2 {
			t.Errorf("event %+v", e)
		}
	})
}

func TestHigherSessionEndsTheLower(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		old := r.open(4)
		old.create(1, 1, 1)
		if _, err := r.tryOpen(3, 0); !errors.Is(err, core.ErrStale) {
			t.Errorf("lower session: %v", err)
		}
		fresh := r.open(5)
		mustBe(t, "older session", old.broken(), core.ErrStale)
		old.send(runCommand(1, 1, 2, 7, memory.Instant))
		if h := fresh.opened.GetHeld(); len(h) != 1 || h[0].GetEntity() != 1 || h[0].GetEpoch() != 1 || h[0].GetApplied() != 1 {
			t.Errorf("held %v", h)
		}
		if e := fresh.expect(core.EventApplied); e.Seq != 1 {
			t.Errorf("event %+v", e)
		}
		synctest.Wait()
		if slices.Contains(r.calls.all(), "1 run 7") {
			t.Error("a stale session ran a job")
		}
		stream, err := r.client.GetImage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&apiv1.GetImageRequest{Target: &apiv1.ImageTarget{Device: "d0", Session: 4, Entity: 1, Epoch: 1}})
		_, err = stream.Recv()
		mustBe(t, "image for an old session", wire.FromStatus(err), core.ErrStale)
	})
}

func TestEventsComeAgainUntilAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		l.send(runCommand(1, 1, 2, 7, memory.Instant))
		l.expect(core.EventStarted)
		done := l.expect(core.EventCompleted)
		l.ack(done.Seq - 1)
		synctest.Wait()
		l.cancel()
		again := r.open(2)
		if e := again.expect(core.EventCompleted); e.Seq != done.Seq {
			t.Errorf("event %+v, want %+v", e, done)
		}
		again.cancel()
		// Acknowledged in the opening message.
		last, err := r.tryOpen(3, uint64(done.Seq))
		if err != nil {
			t.Fatal(err)
		}
		last.send(message(1, 1, 3, core.MessageSuspend))
		last.expect(core.EventMessageDone)
		last.ack(1000)
		mustBe(t, "acknowledging what was never sent", last.broken(), core.ErrInvalid)
	})
}

func TestFullEventLogHoldsTheExecutors(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		// Each job makes two events; ask for more than are kept, within credits.
		next := uint64(2)
		ran := func() int { return strings.Count(strings.Join(r.calls.all(), ","), "run") }
		for range sdk.EventsMax/2/512 + 1 {
			var batch []core.Command
			for range 512 {
				batch = append(batch, runCommand(1, 1, next, next, memory.Instant))
				next++
			}
			l.send(batch...)
			synctest.Wait()
		}
		for len(l.pending) < sdk.EventsMax-1 {
			if err := l.receive(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		stopped := ran()
		if stopped > sdk.EventsMax/2+1 || stopped < sdk.EventsMax/2-1 {
			t.Errorf("%d jobs ran with room for %d events", stopped, sdk.EventsMax)
		}
		l.ack(l.pending[len(l.pending)-1].Seq)
		synctest.Wait()
		if ran() <= stopped {
			t.Error("nothing goes on after the acknowledgement")
		}
	})
}

func TestTooManyCommandsEndTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		// The create waits for its image, so that nothing leaves the queue.
		l.send(createCommand(1, 1, 1))
		synctest.Wait()
		var batch []core.Command
		for n := range uint64(2*256 + sdk.LaneSlack + 1) {
			batch = append(batch, runCommand(1, 1, 2+n, 2+n, memory.Instant))
		}
		l.send(batch...)
		mustBe(t, "beyond the queue", l.broken(), core.ErrFull)
	})
	// What the executor has taken together with the command that it carries out waits too.
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		batch := []core.Command{createCommand(1, 1, 1)}
		const together = 10
		for n := range uint64(together) {
			batch = append(batch, runCommand(1, 1, 2+n, 2+n, memory.Instant))
		}
		l.send(batch...)
		synctest.Wait()
		batch = batch[:0]
		for n := range uint64(2*256 + sdk.LaneSlack - together) {
			batch = append(batch, runCommand(1, 1, 2+together+n, 2+together+n, memory.Instant))
		}
		l.send(batch...)
		synctest.Wait()
		if m, err := r.client.Health(t.Context(), &apiv1.HealthRequest{}); err != nil || m.GetPending() != 1+2*256+sdk.LaneSlack {
			t.Errorf("%d commands pending, %v", m.GetPending(), err)
		}
		last := core.CommandSeq(2*256 + sdk.LaneSlack + 2)
		l.send(runCommand(1, 1, uint64(last), uint64(last), memory.Instant))
		mustBe(t, "beyond the queue, part of which was taken", l.broken(), core.ErrFull)
	})
}

func TestCreateWaitsForItsImageBoundedly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		begin := time.Now()
		l.send(createCommand(1, 1, 1), runCommand(1, 1, 2, 7, memory.Instant))
		if e := l.expect(core.EventRefused); e.Cause != core.CauseImage || e.Command != 1 {
			t.Errorf("event %+v", e)
		}
		if took := time.Since(begin); took != sdk.ImageWait {
			t.Errorf("waited %v", took)
		}
		// And the other way round; the run above had no answer of its own.
		begin = time.Now()
		mustBe(t, "image without a create", r.putImage(1, 2, []byte{1, 2, 3}, nil), core.ErrDeadline)
		if took := time.Since(begin); took != sdk.ImageWait {
			t.Errorf("waited %v", took)
		}
		l.create(1, 3, 3)
	})
}

func TestRunWaitsForItsKernelBoundedly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.send(createCommand(1, 1, 1))
		if err := r.putImage(1, 1, []byte{1, 2, 3}, nil); err != nil {
			t.Fatal(err)
		}
		l.expect(core.EventApplied)
		begin := time.Now()
		l.send(runCommand(1, 1, 2, 7, memory.Instant))
		if e := l.expect(core.EventRefused); e.Cause != core.CauseKernel || e.Job != 7 || e.Guilty {
			t.Errorf("event %+v", e)
		}
		if took := time.Since(begin); took != sdk.KernelWait {
			t.Errorf("waited %v", took)
		}
		l.send(runCommand(1, 1, 3, 8, memory.Instant))
		synctest.Wait()
		mustBe(t, "wrong digest", r.putKernel([]byte("other"), core.DigestOf(kernel)), core.ErrCorrupt)
		if err := r.putKernel(kernel, core.DigestOf(kernel)); err != nil {
			t.Fatal(err)
		}
		if e := l.expect(core.EventStarted); e.Job != 8 {
			t.Errorf("event %+v", e)
		}
		l.expect(core.EventCompleted)
		bad := runCommand(1, 1, 4, 9, memory.Instant)
		bad.JobSpec.Kernels[core.FormatWasm] = core.DigestOf([]byte(memory.BadKernel))
		mustBe(t, "kernel", r.putKernel([]byte(memory.BadKernel), core.DigestOf([]byte(memory.BadKernel))), core.ErrInvalid)
		foreign := runCommand(1, 1, 5, 10, memory.Instant)
		foreign.JobSpec.Kernels = map[string]core.Digest{core.FormatOpenCL: {}}
		l.send(bad, foreign)
		for range 2 {
			if e := l.expect(core.EventRefused); e.Cause != core.CauseKernel {
				t.Errorf("event %+v", e)
			}
		}
	})
}

func TestRefusalsSayWhy(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		l.send(
			runCommand(1, 1, 2, 7, memory.Trap), message(1, 1, 3, 5), createCommand(1, 1, 4),
			runCommand(2, 1, 1, 8, memory.Instant),
		)
		want := map[core.CommandSeq]core.Cause{2: core.CauseTrap, 3: core.CauseRefused, 4: core.CauseRefused, 1: core.CauseRefused}
		for range want {
			e := l.expect(core.EventRefused)
			if e.Cause != want[e.Command] || e.Error == "" || e.Guilty != (e.Command == 2) {
				t.Errorf("event %+v", e)
			}
		}
		own := message(1, 1, 5, core.MessageBackend+1)
		own.Payload = []byte("abc")
		l.send(own)
		if e := l.expect(core.EventMessageDone); string(e.Reply) != "cba" {
			t.Errorf("event %+v", e)
		}
	})
}

func TestLostEntityAnswersNothingMore(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		l.send(runCommand(1, 1, 2, 7, memory.Lose), runCommand(1, 1, 3, 8, memory.Instant), message(1, 1, 4, core.MessageSuspend))
		l.expect(core.EventStarted)
		if e := l.expect(core.EventEntityLost); !e.Guilty || e.Job != 7 || e.Cause != core.CauseHang {
			t.Errorf("event %+v", e)
		}
		l.send(command(core.CommandDestroy, 1, 1, 5, 0))
		l.expect(core.EventDestroyed)
		if slices.Contains(r.calls.all(), "1 run 8") {
			t.Error("a lost entity ran a job")
		}
	})
}

func TestProgressIsSampledWhileAJobRuns(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		l.send(runCommand(1, 1, 2, 7, memory.Slow))
		l.expect(core.EventStarted)
		for len(l.progress) < 3 {
			if err := l.receive(); err != nil {
				t.Fatal(err)
			}
		}
		for i, p := range l.progress {
			if p.Job != 7 || p.Done != uint64(i+1) || p.Epoch != 1 {
				t.Errorf("sample %d: %+v", i, p)
			}
		}
		l.send(command(core.CommandCancel, 1, 1, 3, 7))
		l.expect(core.EventCancelled)
		l.progress = nil
		time.Sleep(time.Second)
		l.send(message(1, 1, 4, core.MessageResume))
		l.expect(core.EventMessageDone)
		if len(l.progress) != 0 {
			t.Errorf("samples of a job that ended: %+v", l.progress)
		}
	})
}

func TestCallThatNeverReturnsFailsTheDevice(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		begin := time.Now()
		l.send(runCommand(1, 1, 2, 7, memory.Block))
		if e := l.expect(core.EventRefused); e.Job != 7 || time.Since(begin) != sdk.RunBound {
			t.Errorf("after %v: %+v", time.Since(begin), e)
		}
		r.backend.Failed(errors.New("fell off the bus"))
		r.backend.Failed(errors.New("again"))
		if e := l.expect(core.EventDeviceHealth); !strings.Contains(e.Error, "bus") {
			t.Errorf("event %+v", e)
		}
	})
}

// TestCompletedThrough: one report completes every job before it, each once and
// in order, without those that were refused or have ended.
func TestCompletedThrough(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		from := runCommand(1, 1, 2, 2, memory.Pile)
		from.First = 10
		l.send(from, runCommand(1, 1, 3, 3, memory.Trap), runCommand(1, 1, 4, 4, memory.Pile),
			runCommand(1, 1, 5, 5, memory.Instant), runCommand(1, 1, 6, 6, memory.Stamp), runCommand(1, 1, 7, 7, memory.Stamp))
		l.expect(core.EventRefused)
		l.expect(core.EventStarted)
		for _, want := range []core.BackendEvent{
			{Job: 5, Done: 16, Executed: 16, ExecutedTime: time.Millisecond},
			{Job: 2, Done: 16, Executed: 6},
			{Job: 4, Done: 16, Executed: 16},
			{Job: 6, Done: 16, Executed: 16, ExecutedTime: time.Millisecond},
			{Job: 7, Done: 16, Executed: 16, ExecutedTime: time.Millisecond},
		} {
			got := l.expect(core.EventCompleted)
			want.Kind, want.Entity, want.Epoch, want.Seq = core.EventCompleted, 1, 1, got.Seq
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		// After a long row the list is empty again, and an entity that was lost reports nothing.
		var batch []core.Command
		for n := range uint64(400) {
			batch = append(batch, runCommand(1, 1, 8+n, 8+n, memory.Pile))
		}
		l.send(append(batch, runCommand(1, 1, 408, 408, memory.Stamp))...)
		for n := range core.JobID(401) {
			if got := l.expect(core.EventCompleted); got.Job != 8+n {
				t.Fatalf("job %d, want %d", got.Job, 8+n)
			}
		}
		l.send(runCommand(1, 1, 409, 409, memory.Pile), runCommand(1, 1, 410, 410, memory.Lose), runCommand(1, 1, 411, 411, memory.Stamp))
		l.expect(core.EventStarted)
		l.expect(core.EventEntityLost)
		synctest.Wait()
		l.send(command(core.CommandDestroy, 1, 1, 412, 0))
		l.expect(core.EventDestroyed)
	})
}

// TestSuspendHasTheBoundOfItsDevice: a device knows how long its firmware may take.
func TestSuspendHasTheBoundOfItsDevice(t *testing.T) {
	for _, tc := range []struct{ says, takes, refused time.Duration }{
		{0, sdk.LeaveBound - time.Second, 0},
		{0, sdk.LeaveBoundMax - time.Second, sdk.LeaveBound},
		{100 * time.Second, 95 * time.Second, 0},
		{time.Millisecond, time.Hour, time.Second},
		{time.Hour, time.Hour, sdk.LeaveBoundMax},
	} {
		bubble(t, func(t *testing.T, r *rig) {
			r.backend.LeaveBound, r.backend.SuspendTakes = tc.says, tc.takes
			l := r.open(1)
			l.create(1, 1, 1)
			begin := time.Now()
			l.send(message(1, 1, 2, core.MessageSuspend))
			e := l.next()
			want := core.BackendEvent{Kind: core.EventMessageDone}
			after := tc.takes
			if tc.refused != 0 {
				want, after = core.BackendEvent{Kind: core.EventRefused, Cause: core.CauseHang}, tc.refused
			}
			if e.Kind != want.Kind || e.Cause != want.Cause || time.Since(begin) != after {
				t.Errorf("%+v: after %v: %+v", tc, time.Since(begin), e)
			}
		})
	}
	// While a command of an entity is carried out the SDK does not sample it. The
	// longest is a run that waits for its kernel, then takes its own bound.
	busy := max(sdk.Control, sdk.KernelWait+sdk.RunBound) + sdk.CallGrace
	if busy >= sched.DefaultSilence {
		t.Errorf("an entity is not sampled for up to %v, and for %v the schedulers wait", busy, sched.DefaultSilence)
	}
	// A suspend may come behind such a command.
	if takes := busy + sdk.LeaveBoundMax + sdk.CallGrace; takes >= sched.DefaultAnswer {
		t.Errorf("a backend has %v to answer a suspend, the schedulers wait %v", takes, sched.DefaultAnswer)
	}
}

// TestDeviceThatFailedIsNamedOnce: the line says which device, once.
func TestDeviceThatFailedIsNamedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		defer l.cancel()
		r.backend.Failed(errors.New("fell off the bus"))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := r.client.Logs(ctx, &apiv1.LogsRequest{After: 1})
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if text := m.GetLines()[0].GetText(); text != `device failed device=d0 error="fell off the bus"` {
			t.Errorf("line %q", text)
		}
	})
}

func TestDamagedImagesAreRefused(t *testing.T) {
	content := bytes.Repeat([]byte{7}, core.ChunkSize+10)
	for name, damage := range map[string]func(int, *apiv1.PutImageRequest){
		"byte flipped": func(n int, m *apiv1.PutImageRequest) {
			if n == 2 {
				m.Data = append([]byte{8}, m.Data[1:]...)
			}
		},
		"trailer": func(_ int, m *apiv1.PutImageRequest) {
			if m.Trailer != nil {
				m.Trailer.Chunks++
			}
		},
		"chunk left out": func(n int, m *apiv1.PutImageRequest) {
			if n == 2 {
				m.Names = nil
			}
		},
		"called zero": func(n int, m *apiv1.PutImageRequest) {
			if n == 1 {
				m.Names.Refs[len(m.Names.Refs)-1] = 1
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				l := r.open(1)
				l.send(createCommand(1, 1, 1))
				mustBe(t, "image", r.putImage(1, 1, content, damage), core.ErrCorrupt)
				if e := l.expect(core.EventRefused); e.Cause != core.CauseImage {
					t.Errorf("event %+v", e)
				}
				if err := r.putImage(1, 0, content, nil); !errors.Is(err, core.ErrInvalid) {
					t.Errorf("epoch 0: %v", err)
				}
			})
		})
	}
}

func TestImageNeedsASuspendedEntity(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		l.create(1, 1, 1)
		get := func(entity, epoch uint64) error {
			stream, err := r.client.GetImage(context.Background())
			if err != nil {
				return err
			}
			_ = stream.Send(&apiv1.GetImageRequest{Target: &apiv1.ImageTarget{Device: "d0", Session: 1, Entity: entity, Epoch: epoch}})
			if _, err = stream.Recv(); err != nil {
				return wire.FromStatus(err)
			}
			// A host that never answers the window must not hold the entity for ever.
			for err == nil {
				_, err = stream.Recv()
			}
			return wire.FromStatus(err)
		}
		mustBe(t, "running", get(1, 1), core.ErrInvalid)
		mustBe(t, "not there", get(2, 1), core.ErrNotFound)
		l.send(message(1, 1, 2, core.MessageSuspend))
		l.expect(core.EventMessageDone)
		mustBe(t, "other epoch", get(1, 2), core.ErrStale)
		mustBe(t, "silent host", get(1, 1), core.ErrDeadline)
		l.send(message(1, 1, 3, core.MessageResume))
		l.expect(core.EventMessageDone)
	})
}

func TestLeaseRunsOutWithoutAHost(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		time.Sleep(3 * leaseOfTests)
		select {
		case <-r.server.Ended():
			t.Fatal("ended while a host was connected")
		default:
		}
		l.cancel()
		begin := time.Now()
		<-r.server.Ended()
		if took := time.Since(begin); took != leaseOfTests {
			t.Errorf("lease of %v", took)
		}
		if !slices.Contains(r.calls.all(), "0 close") {
			t.Error("the device was not closed")
		}
	})
}

func TestOpeningADevice(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		if _, err := r.tryOpen(0, 0); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("session 0: %v", err)
		}
		l := r.open(1)
		defer l.cancel()
		for engine, want := range map[string]error{"other": core.ErrExists, "broken": core.ErrInvalid} {
			name := map[string]string{"other": "d0", "broken": "d1"}[engine]
			stream, err := r.client.Session(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.Send(&apiv1.SessionRequest{Open: &apiv1.OpenDevice{Spec: &apiv1.DeviceSpec{Name: name, Engine: engine}, Session: 1}})
			_, err = stream.Recv()
			mustBe(t, engine, wire.FromStatus(err), want)
		}
		hello, err := r.client.Hello(context.Background(), &apiv1.HelloRequest{})
		if err != nil || hello.GetInstance() != "test" || hello.GetName() != "memory" {
			t.Errorf("%v, %v", hello, err)
		}
		l.stream.Send(&apiv1.SessionRequest{Commands: []byte{1, 2, 3}})
		mustBe(t, "garbage", l.broken(), core.ErrCorrupt)
	})
}

func TestLogLinesAreNumbered(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		l := r.open(1)
		defer l.cancel()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := r.client.Logs(ctx, &apiv1.LogsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil || m.GetLines()[0].GetNumber() != 1 || m.GetLines()[0].GetText() != "device opened device=d0 engine=none" {
			t.Errorf("%v, %v", m, err)
		}
	})
}

func TestBufferImage(t *testing.T) {
	b := make([]byte, 2*core.ChunkSize+1)
	b[core.ChunkSize] = 1
	h := core.ImageHeader{Buffers: []core.BufferSpec{{Name: "b", Size: uint64(len(b))}}}
	var sizes []int
	var nils []bool
	err := sdk.BufferImage(h, [][]byte{b}).Chunks(func(ref core.ChunkRef, data []byte) error {
		sizes, nils = append(sizes, ref.Size), append(nils, data == nil)
		if ref.Digest != core.DigestOf(b[ref.Index*core.ChunkSize:][:ref.Size]) {
			t.Errorf("digest of chunk %d", ref.Index)
		}
		return nil
	})
	if err != nil || !slices.Equal(sizes, []int{core.ChunkSize, core.ChunkSize, 1}) || !slices.Equal(nils, []bool{true, false, true}) {
		t.Error(err, sizes, nils)
	}
	mustBe(t, "short", sdk.BufferImage(h, [][]byte{b[1:]}).Chunks(nil), core.ErrInvalid)
	mustBe(t, "missing", sdk.BufferImage(h, nil).Chunks(nil), core.ErrInvalid)
}
