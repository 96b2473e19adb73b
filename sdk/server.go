package sdk

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// errEnding is the cause of everything that stops when the process ends.
var errEnding = fmt.Errorf("instance is ending: %w", core.ErrGone)

// server is the plugin's side of the backend seam.
type server struct {
	apiv1.UnimplementedBackendServer
	backend  Backend
	instance string
	lease    time.Duration
	log      hclog.Logger
	lines    *logRing
	// fatal ends the process with a line that says why.
	fatal func(string)
	// captured is called once, before the first call of a host is answered.
	captured func()
	capture  sync.Once
	ending   sync.Once
	// ended is closed when all devices are closed and the process may go.
	ended chan struct{}

	mu struct {
		sync.Mutex
		devices map[string]*opening
		closing bool
		// hosts counts the streams of connected hosts; expiry runs while there are none.
		hosts  int
		expiry *time.Timer
	}
}

// opening is a device that is being opened, or was; done is closed when dev and
// err are final.
type opening struct {
	spec core.DeviceSpec
	done chan struct{}
	dev  *device
	err  error
}

func newServer(b Backend, instance string, lease time.Duration, lines *logRing, log hclog.Logger) *server {
	s := &server{backend: b, instance: instance, lease: lease, log: log, lines: lines, ended: make(chan struct{})}
	s.fatal = func(why string) { panic(why) }
	s.captured = func() {}
	s.mu.devices = make(map[string]*opening)
	// A loaded machine may take long to bring the first host here.
	s.mu.expiry = time.AfterFunc(max(lease, firstLease), s.expire)
	return s
}

// enter counts a stream of a host; leave must be called when it ends.
func (s *server) enter() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		return nil, errEnding
	}
	s.mu.hosts++
	s.mu.expiry.Stop()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.hosts--
		if s.mu.hosts == 0 && !s.mu.closing {
			s.mu.expiry.Reset(s.lease)
		}
	}, nil
}

// expire ends the process when no host came back in time.
func (s *server) expire() {
	s.mu.Lock()
	connected := s.mu.hosts > 0
	s.mu.Unlock()
	if connected {
		return
	}
	s.log.Info("lease ran out", "lease", s.lease)
	s.shutdown()
}

// shutdown closes all devices, within closeBound each, and lets the process
// end. It may be called any number of times; all calls return when it is done.
func (s *server) shutdown() {
	s.ending.Do(func() {
		s.mu.Lock()
		s.mu.closing = true
		s.mu.expiry.Stop()
		all := slices.Collect(maps.Values(s.mu.devices))
		s.mu.Unlock()
		var closed sync.WaitGroup
		for _, o := range all {
			closed.Go(func() { o.close() })
		}
		done := make(chan struct{})
		go func() {
			closed.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(closeBound + time.Second):
			s.log.Warn("device not closed in time", "limit", closeBound)
		}
		close(s.ended)
	})
	<-s.ended
}

func (o *opening) close() {
	<-o.done
	if o.dev != nil {
		o.dev.close(errEnding)
	}
}

// device finds an open device.
func (s *server) device(name string) (*device, error) {
	s.mu.Lock()
	o := s.mu.devices[name]
	s.mu.Unlock()
	if o != nil {
		select {
		case <-o.done:
			if o.err == nil {
				return o.dev, nil
			}
		default:
		}
	}
	return nil, fmt.Errorf("device %q is not open: %w", wire.Cut(name), core.ErrNotFound)
}

// open returns the device of that name, and brings it up on the first call.
func (s *server) open(ctx context.Context, spec core.DeviceSpec) (*device, error) {
	s.mu.Lock()
	o := s.mu.devices[spec.Name]
	switch {
	case s.mu.closing:
		s.mu.Unlock()
		return nil, errEnding
	case o == nil && len(s.mu.devices) >= devicesMax:
		s.mu.Unlock()
		return nil, fmt.Errorf("devices of the instance: %w", core.ErrFull)
	case o == nil:
		o = &opening{spec: spec, done: make(chan struct{})}
		s.mu.devices[spec.Name] = o
		go s.bringUp(o)
	}
	s.mu.Unlock()
	if !sameSpec(o.spec, spec) {
		return nil, fmt.Errorf("open with another specification: %w", core.ErrExists)
	}
	select {
	case <-o.done:
		return o.dev, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func sameSpec(a, b core.DeviceSpec) bool {
	return a.Name == b.Name && a.Backend == b.Backend && a.Engine == b.Engine && maps.Equal(a.Options, b.Options)
}

// bringUp opens the backend's device. After an error the name is free again.
func (s *server) bringUp(o *opening) {
	log := s.log.With("device", o.spec.Name)
	d := newDevice(o.spec, log, s.fatal)
	err := d.call("open", openBound, func(ctx context.Context) (err error) {
		d.dev, err = s.backend.Open(ctx, o.spec, log, d.fail)
		return err
	})
	if err == nil {
		d.description = d.dev.Describe()
		if b, ok := d.dev.(LeaveBounder); ok {
			d.leave = max(min(b.LeaveBound(), LeaveBoundMax), time.Second)
		}
		_, err = wire.ToDeviceDescription(wire.FromDeviceDescription(d.description))
		if err != nil {
			d.close(err)
		}
	}
	if err != nil {
		d.cancel(err)
		s.mu.Lock()
		delete(s.mu.devices, o.spec.Name)
		s.mu.Unlock()
		o.err = err
	} else {
		o.dev = d
	}
	close(o.done)
}

// Hello implements the service.
func (s *server) Hello(context.Context, *apiv1.HelloRequest) (*apiv1.HelloReply, error) {
	s.capture.Do(s.captured)
	m := wire.FromBackendDescription(s.backend.Describe())
	m.Instance = s.instance
	return m, nil
}

// Health implements the service.
func (s *server) Health(context.Context, *apiv1.HealthRequest) (*apiv1.HealthReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := &apiv1.HealthReply{}
	for _, o := range s.mu.devices {
		select {
		case <-o.done:
			if o.dev != nil {
				reply.Pending += uint64(max(o.dev.pending.Load(), 0))
			}
		default:
		}
	}
	return reply, nil
}

// Shutdown implements the service.
func (s *server) Shutdown(context.Context, *apiv1.ShutdownRequest) (*apiv1.ShutdownReply, error) {
	s.log.Info("shutdown requested")
	s.shutdown()
	return &apiv1.ShutdownReply{}, nil
}

// Logs implements the service. While it is open a host counts as connected.
func (s *server) Logs(r *apiv1.LogsRequest, stream apiv1.Backend_LogsServer) error {
	leave, err := s.enter()
	if err != nil {
		return wire.ToStatus(err, 0)
	}
	defer leave()
	after := r.GetAfter()
	for {
		lines, more := s.lines.since(after)
		if len(lines) > 0 {
			if err := stream.Send(&apiv1.LogsReply{Lines: lines}); err != nil {
				return err
			}
			after = lines[len(lines)-1].Number
			continue
		}
		select {
		case <-more:
		case <-stream.Context().Done():
			return nil
		case <-s.ended:
			if last, _ := s.lines.since(after); len(last) == 0 {
				return wire.ToStatus(errEnding, 0)
			}
		}
	}
}
