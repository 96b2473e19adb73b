package plugintest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

// lie is one thing in which a plugin breaks its promises, and the check that is meant
// to catch it. Everything else it does right. Lies happen by count, not by time.
type lie struct {
	// caught is the check that must fail; also are others that may, for the same reason.
	caught string
	also   []string

	event     func(s *state, e core.BackendEvent) []core.BackendEvent
	command   func(s *state, c core.Command) []core.Command
	progress  func(s *state, samples []core.BackendEvent) []core.BackendEvent
	number    func(s *state, seq core.EventSeq) core.EventSeq
	open      func(r *relay, m *apiv1.OpenDevice)
	opened    func(m *apiv1.DeviceOpened)
	reconnect func(r *relay)
	malformed func(b []byte)
	health    func(ctx context.Context, p *proxy)
	status    func(err error) error
	// image may change a message, of which data were bytes of chunks so far; false ends
	// the image.
	image       func(data int, m *apiv1.GetImageReply) bool
	ignoresAcks bool
	// immortal processes end by SIGKILL only, frail ones with their first host, touchy
	// ones by any signal, impatient ones with their lease, whoever is connected.
	immortal, frail, touchy, impatient bool
	// endless calls never end as deadline, hasty ones do at once.
	endless, hasty bool
	// foreign is told of the entities whose image is another backend's.
	foreign func(s *state, entity core.EntityID)
}

func keyOf(e *core.BackendEvent) entityKey { return entityKey{e.Entity, e.Epoch} }

// nth is how many events of a kind an entity must have had before the lie, and
// lateData after how many chunks an image is damaged.
const (
	nth      = 12
	lateData = 20
)

// atNth calls f for the nth event of a kind of each entity.
func atNth(kind core.BackendEventKind, f func(s *state, e core.BackendEvent) []core.BackendEvent) func(*state, core.BackendEvent) []core.BackendEvent {
	return func(s *state, e core.BackendEvent) []core.BackendEvent {
		if e.Kind != kind {
			return []core.BackendEvent{e}
		}
		s.count[keyOf(&e)]++
		if s.count[keyOf(&e)] != nth {
			return []core.BackendEvent{e}
		}
		return f(s, e)
	}
}

// changed changes the events that match.
func changedEvent(match func(e *core.BackendEvent) bool, change func(e *core.BackendEvent)) func(*state, core.BackendEvent) []core.BackendEvent {
	return func(_ *state, e core.BackendEvent) []core.BackendEvent {
		if match(&e) {
			change(&e)
		}
		return []core.BackendEvent{e}
	}
}

func refusedRun(e *core.BackendEvent) bool {
	return e.Kind == core.EventRefused && e.Job != 0 && e.Cause == core.CauseRefused
}

func lostEvent(e *core.BackendEvent) bool { return e.Kind == core.EventEntityLost }

// trapChecks are the checks that begin with a kernel that faults.
var trapChecks = []string{
	"fault-names-its-cause", "fault-says-how-far-it-came", "fault-spares-the-innocent", "lost-entity-is-silent", "lost-entity-comes-again",
}

func nothing(*state, core.BackendEvent) []core.BackendEvent { return nil }

func twice(_ *state, e core.BackendEvent) []core.BackendEvent { return []core.BackendEvent{e, e} }

// lies are the broken backends. "truth" is none.
var lies = map[string]lie{
	"truth": {},

	"gap-in-the-numbers": {caught: "events-are-numbered-without-gaps",
		number: func(s *state, seq core.EventSeq) core.EventSeq {
			if seq-s.r.acked > 2*nth {
				return seq + 1
			}
			return seq
		}},
	"loses-a-start":      {caught: "starts-every-job", event: atNth(core.EventStarted, nothing)},
	"loses-a-completion": {caught: "completes-every-job", also: []string{"ring-takes-its-credits"}, event: atNth(core.EventCompleted, nothing)},
	"completes-twice":    {caught: "completes-once", event: atNth(core.EventCompleted, twice)},
	"completes-out-of-order": {caught: "completes-in-order", also: []string{"runs-one-after-another"},
		event: func(s *state, e core.BackendEvent) []core.BackendEvent {
			k := keyOf(&e)
			if before, waits := s.held[k]; waits && e.Kind == core.EventCompleted {
				delete(s.held, k)
				return []core.BackendEvent{e, before}
			}
			return atNth(core.EventCompleted, func(s *state, e core.BackendEvent) []core.BackendEvent {
				s.held[k] = e
				return nil
			})(s, e)
		}},
	"counts-one-too-many": {caught: "counts-workgroups-executed",
		event: atNth(core.EventCompleted, func(_ *state, e core.BackendEvent) []core.BackendEvent {
			e.Executed++
			return []core.BackendEvent{e}
		})},
	"counts-one-too-few": {caught: "counts-workgroups-done",
		event: atNth(core.EventCompleted, func(_ *state, e core.BackendEvent) []core.BackendEvent {
			e.Done--
			return []core.BackendEvent{e}
		})},
	"reports-after-destroyed": {caught: "nothing-after-destroyed",
		event: func(_ *state, e core.BackendEvent) []core.BackendEvent {
			if e.Kind != core.EventDestroyed || e.Job == 0 {
				return []core.BackendEvent{e}
			}
			late := core.BackendEvent{Kind: core.EventStarted, Entity: e.Entity, Epoch: e.Epoch, Job: e.Job}
			return []core.BackendEvent{e, late}
		}},
	"blames-nobody": {caught: "fault-blames-its-job", event: changedEvent(
		func(e *core.BackendEvent) bool { return e.Kind == core.EventEntityLost }, func(e *core.BackendEvent) { e.Guilty = false })},
	"calls-a-trap-a-hang": {caught: "fault-names-its-cause", event: changedEvent(
		func(e *core.BackendEvent) bool { return e.Kind == core.EventEntityLost && e.Cause == core.CauseTrap },
		func(e *core.BackendEvent) { e.Cause = core.CauseHang })},
	"refuses-without-cause":    {caught: "refusal-names-its-cause", event: changedEvent(refusedRun, func(e *core.BackendEvent) { e.Cause = core.CauseNone })},
	"refuses-without-sentence": {caught: "refusal-says-why", event: changedEvent(refusedRun, func(e *core.BackendEvent) { e.Error = "" })},
	"dies-of-garbage": {caught: "malformed-unknown-kind", malformed: func(b []byte) {
		if len(b) > 1 && b[1]&0x0f == 0x0f {
			os.Exit(3)
		}
	}},
	"errors-without-detail": {caught: "errors-carry-detail", also: []string{
		"device-needs-a-name", "unknown-engine-is-refused", "device-keeps-its-specification", "bulk-calls-need-a-session",
	}, status: func(err error) error {
		st, _ := status.FromError(err)
		return status.Error(st.Code(), st.Message())
	}},
	"silent-while-busy": {caught: "health-answers-while-busy", health: func(ctx context.Context, p *proxy) {
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for busy := true; busy && ctx.Err() == nil; <-tick.C {
			p.mu.Lock()
			busy = len(p.started) > 0
			p.mu.Unlock()
		}
	}},

	"never-samples": {caught: "executing-job-is-sampled", progress: func(*state, []core.BackendEvent) []core.BackendEvent { return nil }},
	"counts-no-time": {caught: "executed-time-is-counted", also: []string{"end-is-not-below-its-samples"}, event: changedEvent(
		func(*core.BackendEvent) bool { return true }, func(e *core.BackendEvent) { e.ExecutedTime = 0 })},
	"ends-below-its-samples": {caught: "end-is-not-below-its-samples", event: changedEvent(
		func(e *core.BackendEvent) bool { return e.Kind == core.EventCancelled }, func(e *core.BackendEvent) { e.Done, e.Executed = 1, 1 })},
	"floods-progress": {caught: "progress-is-bounded", progress: func(_ *state, samples []core.BackendEvent) []core.BackendEvent {
		return slices.Repeat(samples, 4*samplesFlood)
	}},
	"progress-beyond-the-grid": {caught: "progress-stays-within-the-grid", also: []string{"end-is-not-below-its-samples"}, progress: func(_ *state, samples []core.BackendEvent) []core.BackendEvent {
		for i := range samples {
			samples[i].Done += foreverGroups
		}
		return samples
	}},
	"progress-falls": {caught: "progress-rises", also: []string{"end-is-not-below-its-samples"}, progress: func(s *state, samples []core.BackendEvent) []core.BackendEvent {
		for i := range samples {
			if s.odd = !s.odd; s.odd {
				samples[i].Done += samplesFlood
			}
		}
		return samples
	}},
	"progress-of-another-job": {caught: "progress-is-of-executing-jobs", also: []string{"executing-job-is-sampled"}, progress: func(_ *state, samples []core.BackendEvent) []core.BackendEvent {
		for i := range samples {
			samples[i].Job += 1 << 40
		}
		return samples
	}},
	"progress-never-ends": {caught: "progress-ends-with-its-job",
		progress: func(s *state, samples []core.BackendEvent) []core.BackendEvent {
			for i := range samples {
				s.sample[keyOf(&samples[i])] = samples[i]
			}
			return samples
		},
		event: func(s *state, e core.BackendEvent) []core.BackendEvent {
			if last, ok := s.sample[keyOf(&e)]; ok && e.Kind == core.EventCompleted && e.Job != last.Job {
				s.r.sample([]core.BackendEvent{last})
			}
			return []core.BackendEvent{e}
		}},

	"wrong-code": {caught: "errors-carry-detail", status: func(err error) error {
		st, _ := status.FromError(err)
		p := st.Proto()
		p.Code = int32(codes.Internal)
		return status.FromProto(p).Err()
	}},
	"blames-a-refusal":   {caught: "refusal-blames-nobody", event: changedEvent(refusedRun, func(e *core.BackendEvent) { e.Guilty = true })},
	"fault-came-too-far": {caught: "fault-says-how-far-it-came", event: changedEvent(lostEvent, func(e *core.BackendEvent) { e.Done = 16 })},
	"fault-is-a-refusal": {caught: "fault-blames-its-job", also: trapChecks, event: changedEvent(lostEvent, func(e *core.BackendEvent) { e.Kind = core.EventRefused })},
	"forgets-lost-ones": {caught: "holds-lost-entities", opened: func(m *apiv1.DeviceOpened) {
		m.Held = slices.DeleteFunc(m.Held, func(h *apiv1.HeldEntity) bool { return h.GetApplied() == 2 })
	}},
	"speaks-of-the-buried": {caught: "newer-epoch-replaces", command: func(s *state, c core.Command) []core.Command {
		if c.Kind == core.CommandCreate && s.latest[c.Entity] != 0 && c.Epoch > s.latest[c.Entity] {
			s.r.emit(core.BackendEvent{Kind: core.EventEntityLost, Entity: c.Entity, Epoch: s.latest[c.Entity], Cause: core.CauseDevice, Error: "x"}, s.r.seen)
		}
		if c.Kind == core.CommandCreate {
			s.latest[c.Entity] = c.Epoch
		}
		return []core.Command{c}
	}},
	"answers-an-older-destroy": {caught: "destroy-of-an-older-epoch", command: func(s *state, c core.Command) []core.Command {
		if c.Kind == core.CommandCreate {
			s.latest[c.Entity] = c.Epoch
		}
		if c.Kind == core.CommandDestroy && c.Epoch < s.latest[c.Entity] {
			s.r.emit(core.BackendEvent{Kind: core.EventDestroyed, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq / seqRoom}, s.r.seen)
		}
		return []core.Command{c}
	}},

	"message-overtakes-a-job": {caught: "message-keeps-its-place",
		command: func(s *state, c core.Command) []core.Command {
			if c.Kind == core.CommandMessage {
				s.asked[entityKey{c.Entity, c.Epoch}] = c.Seq / seqRoom
			}
			return []core.Command{c}
		},
		event: func(s *state, e core.BackendEvent) []core.BackendEvent {
			k := keyOf(&e)
			if e.Kind == core.EventRefused && s.asked[k] > e.Command {
				s.held[k] = e
				return nil
			}
			if before, waits := s.held[k]; waits && e.Kind == core.EventMessageDone {
				delete(s.held, k)
				return []core.BackendEvent{e, before}
			}
			return []core.BackendEvent{e}
		}},
	"answers-a-message-twice": {caught: "message-is-answered-once", also: []string{"message-keeps-its-place"},
		event: func(s *state, e core.BackendEvent) []core.BackendEvent {
			if e.Kind == core.EventMessageDone {
				if s.count[keyOf(&e)]++; s.count[keyOf(&e)] == 3 {
					return []core.BackendEvent{e, e}
				}
			}
			return []core.BackendEvent{e}
		}},
	"blocks-for-ever": {caught: "set-properties-is-answered", also: []string{"set-properties-while-busy", "suspended-sets-properties"},
		command: func(s *state, c core.Command) []core.Command {
			if s.mute[c.Entity] = s.mute[c.Entity] || c.Properties.Priority == core.PriorityHigh; s.mute[c.Entity] {
				return nil
			}
			return []core.Command{c}
		}},

	"suspend-lies": {caught: "suspend-stops-work",
		command: func(s *state, c core.Command) []core.Command {
			k := entityKey{c.Entity, c.Epoch}
			if c.Kind != core.CommandMessage || c.Message != core.MessageSuspend || c.Seq <= s.asked[k] {
				return []core.Command{c}
			}
			s.asked[k] = c.Seq
			if s.count[k]++; s.count[k] < 3 {
				return []core.Command{c}
			}
			s.r.emit(core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq / seqRoom, Cost: 1}, 0)
			s.r.send()
			return nil
		}},
	"suspend-costs-nothing": {caught: "suspend-reports-its-cost", event: changedEvent(
		func(e *core.BackendEvent) bool { return e.Kind == core.EventMessageDone }, func(e *core.BackendEvent) { e.Cost = 0 })},
	"skips-a-workgroup": {caught: "results-are-in-order",
		command: func(s *state, c core.Command) []core.Command {
			if c.Kind == core.CommandRun {
				if s.count[entityKey{c.Entity, c.Epoch}]++; s.count[entityKey{c.Entity, c.Epoch}] == nth {
					c.First++
				}
			}
			return []core.Command{c}
		}},
	"image-with-a-flipped-bit": {caught: "image-bytes-match-their-digests", image: func(data int, m *apiv1.GetImageReply) bool {
		if data == lateData && len(m.GetData()) > 0 {
			m.Data[len(m.Data)/2] ^= 1
		}
		return true
	}},
	"image-with-a-wrong-digest": {caught: "image-trailer-matches", image: func(data int, m *apiv1.GetImageReply) bool {
		if data >= lateData && m.GetTrailer() != nil {
			m.Trailer.Digest[7] ^= 1
		}
		return true
	}},
	"image-without-its-end": {caught: "image-comes-to-its-end", image: func(data int, _ *apiv1.GetImageReply) bool { return data < lateData }},
	"image-with-wrong-counts": {caught: "image-lists-unfinished-jobs", image: func(_ int, m *apiv1.GetImageReply) bool {
		if jobs := m.GetHeader().GetJobs(); len(jobs) > 1 {
			jobs[0].Executed++
		}
		return true
	}},

	"carries-out-repeats": {caught: "repeated-run-acts-once", also: []string{"repeated-after-reconnect-acts-once"},
		command: func(s *state, c core.Command) []core.Command {
			if c.Kind == core.CommandRun {
				key := fmt.Sprint(c.Entity, c.Epoch, c.Seq)
				c.Seq += core.CommandSeq(s.seqs[key])
				s.seqs[key]++
			}
			return []core.Command{c}
		}},
	"takes-a-stale-epoch": {caught: "stale-epoch-is-dropped",
		command: func(s *state, c core.Command) []core.Command {
			if c.Kind == core.CommandCreate {
				s.latest[c.Entity] = max(s.latest[c.Entity], c.Epoch)
			}
			if c.Kind == core.CommandRun {
				c.Epoch = max(c.Epoch, s.latest[c.Entity])
			}
			return []core.Command{c}
		}},
	"takes-a-stale-session": {caught: "lower-session-is-refused",
		open: func(r *relay, m *apiv1.OpenDevice) { m.Session = max(m.GetSession(), r.session) }},
	"forgets-what-was-sent": {caught: "events-come-again",
		also: []string{"acknowledged-in-the-opening", "opening-without-a-number", "stale-session-cannot-acknowledge"},
		reconnect: func(r *relay) {
			r.kept = slices.DeleteFunc(r.kept, func(k relayed) bool { return k.sent })
		}},
	"ignores-acknowledgements": {caught: "acknowledged-events-do-not-come-again", also: []string{"opening-without-a-number", "acknowledgement-does-not-fall-back"}, ignoresAcks: true},
	"begins-foreign-jobs-anew": {caught: "foreign-image-continues",
		also: []string{
			"foreign-image-at-every-cursor", "foreign-image-with-several-jobs", "foreign-private-part-is-ignored", "large-private-part-crosses",
			"own-image-under-another-name", "image-moves-back-and-forth",
		},
		foreign: func(s *state, entity core.EntityID) { s.mute[entity] = true },
		command: func(s *state, c core.Command) []core.Command {
			if c.Kind == core.CommandRun && s.mute[c.Entity] {
				c.First = 0
			}
			return []core.Command{c}
		}},
	"forgets-entities": {caught: "holds-entities", also: []string{"holds-lost-entities", "holds-what-waits"}, opened: func(m *apiv1.DeviceOpened) { m.Held = nil }},
}
