package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var (
	// errAwaited says that no kernel of the job was uploaded yet.
	errAwaited = errors.New("kernel not uploaded")
	// errKernel marks errors whose cause is the kernel.
	errKernel = errors.New("kernel")
)

// kernels are the programs a device knows.
type kernels struct {
	d  *device
	mu struct {
		sync.Mutex
		known map[core.Digest]*kernelState
		// changed is closed when a kernel became ready or was refused.
		changed chan struct{}
	}
}

// kernelState is one kernel; done is closed when err is final.
type kernelState struct {
	done chan struct{}
	err  error
}

func (s *kernelState) loaded() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// ready returns which of the kernels that the device takes is loaded, the error
// of loading when none can be, and errAwaited while one may still come.
func (k *kernels) ready(wanted map[string]core.Digest) (core.Digest, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.check(wanted)
}

func (k *kernels) check(wanted map[string]core.Digest) (core.Digest, error) {
	var refused error
	awaited := false
	for _, format := range k.d.description.Formats {
		digest, ok := wanted[format]
		if !ok {
			continue
		}
		s := k.mu.known[digest]
		switch {
		case s == nil || !s.loaded():
			awaited = true
		case s.err == nil:
			return digest, nil
		default:
			refused = fmt.Errorf("%w: %w", errKernel, s.err)
		}
	}
	switch {
	case refused != nil:
		// The host uploads the formats it has; one that was tried and refused
		// is the answer, although another was never sent.
		return core.Digest{}, refused
	case awaited:
		return core.Digest{}, errAwaited
	}
	return core.Digest{}, fmt.Errorf("%w: none of %d formats is taken by the device: %w", errKernel, len(wanted), core.ErrUnsupported)
}

// wait waits until ready has an answer, at most kernelWait.
func (k *kernels) wait(ctx context.Context, wanted map[string]core.Digest) (core.Digest, error) {
	timeout := time.NewTimer(kernelWait)
	defer timeout.Stop()
	for {
		k.mu.Lock()
		digest, err := k.check(wanted)
		changed := k.mu.changed
		k.mu.Unlock()
		if !errors.Is(err, errAwaited) {
			return digest, err
		}
		select {
		case <-changed:
		case <-timeout.C:
			return core.Digest{}, fmt.Errorf("%w: not uploaded: %w", errKernel, core.ErrDeadline)
		case <-ctx.Done():
			return core.Digest{}, context.Cause(ctx)
		}
	}
}

// load makes a kernel known to the device; a repeat returns the first result,
// a kernel that was refused is tried again.
func (k *kernels) load(ctx context.Context, kernel core.Kernel) error {
	k.mu.Lock()
	s := k.mu.known[kernel.Digest]
	if s != nil && (!s.loaded() || s.err == nil) {
		k.mu.Unlock()
		select {
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if s == nil && len(k.mu.known) >= kernelsMax {
		k.mu.Unlock()
		return fmt.Errorf("kernels of device %s: %w", k.d.spec.Name, core.ErrFull)
	}
	s = &kernelState{done: make(chan struct{})}
	k.mu.known[kernel.Digest] = s
	k.mu.Unlock()

	err := k.d.call("load kernel", loadBound, func(ctx context.Context) error { return k.d.dev.LoadKernel(ctx, kernel) })
	k.mu.Lock()
	defer k.mu.Unlock()
	s.err = err
	close(s.done)
	close(k.mu.changed)
	k.mu.changed = make(chan struct{})
	return err
}

// PutKernel implements the service.
func (s *server) PutKernel(stream grpc.ClientStreamingServer[apiv1.PutKernelRequest, apiv1.PutKernelReply]) error {
	return wire.ToStatus(s.putKernel(stream), 0)
}

func (s *server) putKernel(stream grpc.ClientStreamingServer[apiv1.PutKernelRequest, apiv1.PutKernelReply]) error {
	first, err := stream.Recv()
	if err != nil {
		return brokenOff(err)
	}
	h := first.GetHeader()
	var want core.Digest
	if h == nil || h.GetSize() > wire.KernelMax || len(h.GetDigest()) != len(want) || len(h.GetFormat()) > wire.NameMax {
		return fmt.Errorf("header of kernel: %w", core.ErrInvalid)
	}
	copy(want[:], h.GetDigest())
	d, err := s.device(h.GetDevice())
	if err != nil {
		return err
	}
	if err := d.stale(core.Session(h.GetSession())); err != nil {
		return err
	}
	code := first.GetCode()
	for uint64(len(code)) < h.GetSize() {
		m, err := stream.Recv()
		if err != nil {
			return brokenOff(err)
		}
		if len(m.GetCode()) == 0 {
			return fmt.Errorf("empty piece of kernel: %w", core.ErrCorrupt)
		}
		code = append(code, m.GetCode()...)
	}
	if uint64(len(code)) != h.GetSize() || core.DigestOf(code) != want {
		return fmt.Errorf("code of kernel %s: %w", want, core.ErrCorrupt)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("kernel %s goes on after its end: %w", want, core.ErrCorrupt)
	}
	if err := d.kernels.load(stream.Context(), core.Kernel{Digest: want, Format: h.GetFormat(), Code: code}); err != nil {
		return fmt.Errorf("load kernel %s: %w", want, err)
	}
	return stream.SendAndClose(&apiv1.PutKernelReply{})
}

// brokenOff is the error of a kernel whose sender ended it too early, or went away.
func brokenOff(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("kernel ends before its size: %w", core.ErrCorrupt)
	}
	return fmt.Errorf("receive kernel: %w", err)
}
