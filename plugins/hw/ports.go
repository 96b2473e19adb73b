package hw

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Line is an edge-triggered signal line, a doorbell or an interrupt. Several
// raises before the other side looks count as one.
type Line interface {
	// Raise signals the other side. It never blocks and may be called from any goroutine.
	Raise()
	// C delivers one value for one or more raises. One goroutine receives.
	C() <-chan struct{}
}

// Ports are what the two sides have besides memory. The host stores to
// Registers and raises Doorbell; the firmware raises Interrupt.
type Ports struct {
	Registers *Registers
	Doorbell  Line
	Interrupt Line
}

// channelLine is a line within one process.
type channelLine chan struct{}

// NewLine returns a line within one process.
func NewLine() Line { return make(channelLine, 1) }

// Raise implements Line.
func (l channelLine) Raise() {
	select {
	case l <- struct{}{}:
	default:
	}
}

// C implements Line.
func (l channelLine) C() <-chan struct{} { return l }

// PipeEnd is a line between two processes: each raise writes one byte into a pipe.
type PipeEnd struct {
	r, w   *os.File
	notify channelLine
	gone   chan struct{}
	closed atomic.Bool
	reader sync.WaitGroup
}

// PipeLine makes a line from the ends of a pipe that this process holds; the
// side that only raises passes a nil r, the side that only receives a nil w. It
// owns the files from then on, also when it fails. Errors wrap ErrInvalid when both are nil.
func PipeLine(r, w *os.File) (*PipeEnd, error) {
	if r == nil && w == nil {
		return nil, fmt.Errorf("pipe line without a pipe: %w", ErrInvalid)
	}
	p := &PipeEnd{notify: make(channelLine, 1), gone: make(chan struct{})}
	var errR, errW error
	p.r, errR = pollable(r)
	p.w, errW = pollable(w)
	if err := errors.Join(errR, errW); err != nil {
		return nil, errors.Join(fmt.Errorf("pipe line: %w", err), closeFile(p.r), closeFile(p.w))
	}
	if p.r != nil {
		p.reader.Add(1)
		go p.read()
	}
	return p, nil
}

// pollable takes a pipe over into a file whose reads end when it is closed and
// whose writes return at once when the pipe is full. That a descriptor does not
// block must be known when the file is made: an inherited one may block.
func pollable(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var own int
	var set error
	if err := conn.Control(func(fd uintptr) {
		if own, set = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); set == nil {
			set = unix.SetNonblock(own, true)
		}
	}); err != nil {
		return nil, err
	}
	if set != nil {
		return nil, set
	}
	return os.NewFile(uintptr(own), f.Name()), nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// read turns bytes into notifications until the writers are gone or Close.
func (p *PipeEnd) read() {
	defer p.reader.Done()
	defer close(p.gone)
	var buf [256]byte
	for {
		n, err := p.r.Read(buf[:])
		if n > 0 {
			p.notify.Raise()
		}
		if err != nil {
			return
		}
	}
}

// Raise implements Line. A full pipe means that the other side has not looked
// yet: the byte is not needed. A broken one means that it is gone: C's Gone tells.
func (p *PipeEnd) Raise() {
	if p.w == nil {
		return
	}
	conn, err := p.w.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Write(func(fd uintptr) bool {
		for {
			if _, err := unix.Write(int(fd), []byte{1}); err != unix.EINTR {
				return true
			}
		}
	})
}

// C implements Line.
func (p *PipeEnd) C() <-chan struct{} { return p.notify }

// Gone is closed when no process can raise the line any more, or after Close.
// It never is on a line that only raises.
func (p *PipeEnd) Gone() <-chan struct{} { return p.gone }

// Close closes the files and ends the reader. A second call does nothing.
func (p *PipeEnd) Close() error {
	if !p.closed.CompareAndSwap(false, true) {
		return nil
	}
	var err error
	if p.w != nil {
		err = p.w.Close()
	}
	if p.r != nil {
		err = errors.Join(err, p.r.Close())
		p.reader.Wait()
	}
	return err
}

// Registers are windows of PageSize bytes of a vendor's register space. They
// lie at RegisterPage of the arena and behind it, so that both sides see the
// same registers.
type Registers struct {
	arena   *Arena
	windows []uint32
	bus     bus
	watch   func(offset, v uint32)
}

// NewRegisters places the register offsets [window, window+PageSize) of each
// window in pages of the arena, one after the other; both sides name the same windows
// in the same order. Each must be a multiple of PageSize, and they must fit below
// MemoryBase; errors wrap ErrInvalid.
func NewRegisters(a *Arena, windows ...uint32) (*Registers, error) {
	if len(windows) == 0 || uint64(len(windows)) > (MemoryBase-RegisterPage)/PageSize {
		return nil, fmt.Errorf("%d register windows: %w", len(windows), ErrInvalid)
	}
	for i, window := range windows {
		if uint64(window)%PageSize != 0 || slices.Contains(windows[:i], window) {
			return nil, fmt.Errorf("register window %#x: %w", window, ErrInvalid)
		}
	}
	return &Registers{arena: a, windows: slices.Clone(windows)}, nil
}

// Load reads the 32-bit register at the vendor's offset. As on a bus, an
// unaligned offset or one outside of the windows reads as all ones.
func (r *Registers) Load(offset uint32) uint32 {
	if v, ok := r.loaded(offset); ok {
		return v
	}
	addr, ok := r.address(offset)
	if !ok {
		return 0xFFFFFFFF
	}
	v, err := r.arena.Load32(addr)
	if err != nil {
		return 0xFFFFFFFF
	}
	return v
}

// Store writes a register. As on a bus, a write that goes nowhere is lost.
func (r *Registers) Store(offset uint32, v uint32) {
	if !r.stored(offset, v) {
		return
	}
	if addr, ok := r.address(offset); ok {
		_ = r.arena.Store32(addr, v)
	}
	if r.watch != nil {
		r.watch(offset, v)
	}
}

// Watch makes f hear of every Store through r that left something behind, right after it: what another
// processor could see at that moment. For tests; it is called before r is used.
func (r *Registers) Watch(f func(offset, v uint32)) { r.watch = f }

// address returns where the register lies in the arena, false when no window has it.
func (r *Registers) address(offset uint32) (uint64, bool) {
	offset = r.bus.fold(offset)
	for i, window := range r.windows {
		if offset >= window && uint64(offset-window) < PageSize && offset%4 == 0 {
			return RegisterPage + uint64(i)*PageSize + uint64(offset-window), true
		}
	}
	return 0, false
}
