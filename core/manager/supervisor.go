package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/hashicorp/go-hclog"
)

// Limits of supervision.
const (
	// startMax bounds the start or adoption of an instance and the opening of
	// its devices.
	startMax = 60 * time.Second
	// endMax bounds one attempt to end an instance verifiably.
	endMax = 30 * time.Second
	// backoffMin and backoffMax bound the pause before a restart, which doubles
	// and gets up to half of itself added at random.
	backoffMin = 50 * time.Millisecond
	backoffMax = 5 * time.Second
	// crashesMax instances may end within crashWindow without being asked to;
	// then the breaker opens and the backend's entities are suspended.
	crashesMax = 6
	// fruitlessMax instances in a row may end before a session was opened, however
	// long each took; then the breaker opens too.
	fruitlessMax = 4
	crashWindow  = time.Minute
	// reopensMax bounds how often a broken stream of a living instance is
	// opened again within crashWindow.
	reopensMax = 10
)

// supervisor owns the process of one backend: it starts or adopts it, opens a
// session for each of its devices, notices its end, and starts another.
type supervisor struct {
	manager *Manager
	backend string
	devices []*device
	log     hclog.Logger

	restarts chan string     // asked for by a device
	reopens  chan struct{}   // sessions are to be opened anew
	wake     chan struct{}   // there is work; start without a record to adopt
	upgrades chan chan error // the instance is to be replaced; takes the answer
	done     chan struct{}

	// recorded is the instance on record when the manager started, if any.
	recorded *core.InstanceRecord
	crashes  window
	// fruitless counts instances in a row that ended before a session was opened.
	fruitless int
	// current is the instance that lives, if any, candidate the one that is to
	// replace it.
	current, candidate atomic.Pointer[core.InstanceRecord]
}

// forgetRestarts drops what was meant for an instance that is gone.
func (s *supervisor) forgetRestarts() {
	for len(s.restarts) > 0 {
		<-s.restarts
	}
}

// restart asks for a new instance. Asking twice is asking once.
func (s *supervisor) restart(reason string) {
	select {
	case s.restarts <- reason:
	default:
	}
}

func (s *supervisor) reopen() {
	select {
	case s.reopens <- struct{}{}:
	default:
	}
}

func (s *supervisor) start() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// errStopping is why a supervisor gives up its instance when it is told to stop.
var errStopping = errors.New("manager stops")

// run supervises until ctx ends. Then the instance is ended, or let go when
// the manager detaches.
func (s *supervisor) run(ctx context.Context) {
	defer close(s.done)
	record := s.recorded
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		if record == nil {
			select {
			case <-s.wake:
			case answer := <-s.upgrades:
				answer <- nil // the next start takes the executable as it is
				wait = backoffMin
				continue
			case <-ctx.Done():
				return
			}
		}
		begun := time.Now()
		rec, err := s.life(ctx, record)
		record = nil
		if ctx.Err() != nil && s.manager.detach.Load() {
			return // however far it came: it is on record, and the next start goes on with it
		}
		if err := s.bury(context.Background(), rec); err != nil {
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("instance ended", "took", time.Since(begun).Round(time.Millisecond), "error", err)
		if time.Since(begun) > crashWindow {
			wait = backoffMin
		}
		if s.breaker(err) {
			continue // the next work closes it again
		}
		s.start()
		pause := time.NewTimer(wait + rand.N(wait/2))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// breaker counts ends in the window; when there are too many it suspends the
// backend's entities, with the reason, and reports true.
func (s *supervisor) breaker(cause error) bool {
	s.fruitless++
	crashes := s.crashes.add(time.Now())
	why := sentence("plugin %s ended %d times within %s, last: %v", s.backend, crashes, crashWindow, cause)
	switch {
	case errors.Is(cause, errUnfit):
		why = sentence("plugin %s: %v", s.backend, cause) // another one would be the same
	case s.fruitless >= fruitlessMax:
		why = sentence("plugin %s could not be started %d times in a row, last: %v", s.backend, s.fruitless, cause)
	case crashes < crashesMax:
		return false
	}
	s.crashes, s.fruitless = nil, 0
	s.log.Error("crash loop broken", "error", why)
	for _, d := range s.devices {
		d.tell(func() { d.suspendAll(core.CauseDevice, why) })
	}
	return true
}

// window holds the moments of the last crashWindow at which something went wrong.
type window []time.Time

// add returns how many there are with this one.
func (w *window) add(now time.Time) int {
	*w = append(*w, now)
	for now.Sub((*w)[0]) > crashWindow {
		*w = (*w)[1:]
	}
	return len(*w)
}

// life is one instance from its start or adoption to the reason of its end.
func (s *supervisor) life(ctx context.Context, record *core.InstanceRecord) (core.InstanceRecord, error) {
	inst, rec, err := s.bring(ctx, record, false)
	if err != nil {
		return rec, err
	}
	t := &tenure{inst: inst, rec: rec}
	defer func() { t.inst.Detach() }()
	s.current.Store(&rec)
	defer s.current.Store(nil)
	if record != nil && s.manager.config.Launcher.Outdated(rec) {
		s.log.Info("plugin executable has changed", "instance", rec.Instance)
		s.hold() // they go on in the new process, or here when it fails
		defer s.release()
		select {
		case s.upgrades <- make(chan error, 1):
		default:
		}
	}
	var reopens window
	for fresh := true; ; fresh = false {
		t.links, err = s.open(ctx, t.inst, fresh)
		if err == nil {
			s.fruitless = 0
			err = s.serve(ctx, t)
		}
		t.close()
		if !errors.Is(err, errReopen) || reopens.add(time.Now()) > reopensMax {
			return t.rec, err
		}
	}
}

// serve watches the sessions, over upgrades, until something ends them.
func (s *supervisor) serve(ctx context.Context, t *tenure) error {
	for {
		err := s.watch(ctx, t.inst, t.links)
		var asked *upgradeAsked
		if !errors.As(err, &asked) {
			return err
		}
		failed, down := s.upgrade(ctx, t)
		asked.answer <- failed
		if down != nil {
			return down
		}
	}
}

// upgradeAsked ends a watch: the instance is to be replaced in place.
type upgradeAsked struct{ answer chan<- error }

// Error implements error.
func (*upgradeAsked) Error() string { return "upgrade asked for" }

// errReopen asks for new sessions with the same instance.
var errReopen = errors.New("session ended")

// watch waits for what ends the sessions.
func (s *supervisor) watch(ctx context.Context, inst Instance, links []Link) error {
	down, stop := anyDown(links)
	defer stop()
	select {
	case <-ctx.Done():
		return errStopping
	case <-inst.Gone():
		return fmt.Errorf("plugin %s: %w", s.backend, core.ErrGone)
	case reason := <-s.restarts:
		return errors.New(reason)
	case <-s.reopens:
		return errReopen
	case answer := <-s.upgrades:
		return &upgradeAsked{answer}
	case <-down:
		select {
		case <-inst.Gone():
			return fmt.Errorf("plugin %s: %w", s.backend, core.ErrGone)
		case <-time.After(backoffMin):
			return errReopen
		}
	}
}

// anyDown merges the ends of sessions; stop must be called.
func anyDown(links []Link) (down <-chan struct{}, stop func()) {
	merged, stopped := make(chan struct{}, 1), make(chan struct{})
	for _, l := range links {
		go func() {
			select {
			case <-l.Down():
				select {
				case merged <- struct{}{}:
				default:
				}
			case <-stopped:
			}
		}()
	}
	return merged, func() { close(stopped) }
}

// bring adopts the recorded instance, or starts a new one whose record is
// committed before the process exists; candidate says that it is to replace
// another.
func (s *supervisor) bring(ctx context.Context, record *core.InstanceRecord, candidate bool) (Instance, core.InstanceRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	launcher := s.manager.config.Launcher
	if record != nil {
		inst, err := launcher.Adopt(ctx, *record)
		if err != nil {
			return nil, *record, fmt.Errorf("adopt instance %s: %w", record.Instance, err)
		}
		s.log.Info("instance adopted", "instance", record.Instance, "pid", record.Process.PID)
		return inst, *record, nil
	}
	if !candidate {
		s.forgetRestarts()
	}
	specs := make([]core.DeviceSpec, len(s.devices))
	for i, d := range s.devices {
		specs[i] = d.spec
	}
	prepared, err := launcher.Prepare(s.backend, specs)
	if err != nil {
		return nil, prepared, fmt.Errorf("prepare plugin %s: %w", s.backend, err)
	}
	prepared.Candidate = candidate
	if err := s.manager.commit(&core.Write{Instances: []core.InstanceRecord{prepared}}); err != nil {
		return nil, prepared, fmt.Errorf("record instance: %w", err)
	}
	inst, started, err := launcher.Start(ctx, prepared)
	if err != nil {
		return nil, prepared, fmt.Errorf("start plugin %s: %w", s.backend, err)
	}
	if err := s.manager.commit(&core.Write{Instances: []core.InstanceRecord{started}}); err != nil {
		inst.Detach()
		return nil, started, fmt.Errorf("record instance: %w", err)
	}
	what := "instance started"
	if candidate {
		what = "successor started"
	}
	s.log.Debug(what, "instance", started.Instance, "pid", started.Process.PID)
	return inst, started, nil
}

// errUnfit is why a plugin that is well cannot run deployments.
var errUnfit = errors.New("it cannot save images, which results, cancels and suspends are taken from")

// open opens a session for each device, under a number that is committed first,
// and hands it to the device's loop.
func (s *supervisor) open(ctx context.Context, inst Instance, fresh bool) ([]Link, error) {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	var links []Link
	for _, d := range s.devices {
		session, err := s.manager.nextSession(ctx)
		if err != nil {
			return links, fmt.Errorf("record session: %w", err)
		}
		link, err := inst.Open(ctx, d.spec, session, func(events []core.BackendEvent) {
			d.post(func() { d.fromLink(session, events) })
		})
		if err != nil {
			return links, err
		}
		links = append(links, link)
		if !link.Describe().SavesImages {
			return links, fmt.Errorf("device %s: %w", d.spec.Name, errUnfit)
		}
		d.do(func() { d.sessionUp(inst, link, session, fresh) })
	}
	return links, nil
}

// bury ends the process verifiably, tells every device what it had executed,
// and removes the record when all of that is committed. Only then may another
// instance hold the entities. The error says that the end could not be verified
// before ctx ended or the manager stopped; the next start goes on with it.
func (s *supervisor) bury(ctx context.Context, rec core.InstanceRecord) error {
	if rec.Instance == "" {
		return nil
	}
	m := s.manager
	if err := s.end(ctx, rec); err != nil {
		return err
	}
	usage, err := m.config.Launcher.Usage(rec)
	if err != nil {
		s.log.Warn("usage not read", "instance", rec.Instance, "error", err)
	}
	for _, d := range s.devices {
		d.tell(func() { d.instanceGone(usage) })
	}
	if err := m.commit(&core.Write{RemoveInstances: []string{rec.Instance}}); err != nil {
		s.log.Error("instance record not removed", "instance", rec.Instance, "error", err)
		return nil // the next start removes it
	}
	s.discard(rec)
	return nil
}

// end ends the process verifiably, however often that has to be tried.
func (s *supervisor) end(ctx context.Context, rec core.InstanceRecord) error {
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		bound, cancel := context.WithTimeout(ctx, endMax)
		err := s.manager.config.Launcher.End(bound, rec)
		cancel()
		if err == nil {
			return nil
		}
		s.log.Error("instance not ended", "instance", rec.Instance, "error", err)
		select {
		case <-time.After(wait):
		case <-s.manager.killed:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

func (s *supervisor) discard(rec core.InstanceRecord) {
	if err := s.manager.config.Launcher.Discard(rec); err != nil {
		s.log.Warn("instance directory not removed", "instance", rec.Instance, "error", err)
	}
}
