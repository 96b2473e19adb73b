package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// Trace reads the decoded messages of a device from whichever instance below
// dir, the directory of a launcher, has it open: those that are kept, and with
// follow each as it comes, until ctx or the device ends. It opens no session, so
// that it may be called beside the process that owns the instances. line is
// called in order, on the caller's goroutine; an error of it ends the reading.
//
// Errors wrap core.ErrNotFound when no instance has such a device, and
// core.ErrUnsupported when its backend keeps no trace.
func Trace(ctx context.Context, dir, device string, follow bool, line func(core.TraceLine) error) error {
	instances, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("trace of device %s: %w", device, err)
	}
	found := fmt.Errorf("no device %s is open: %w", device, core.ErrNotFound)
	for _, instance := range instances {
		sockets := filepath.Join(dir, instance.Name(), socketsName)
		entries, err := os.ReadDir(sockets)
		if err != nil {
			continue // not started yet, or ended
		}
		for _, entry := range entries {
			if entry.Type()&fs.ModeSocket == 0 {
				continue
			}
			// A socket's address is short, the path in the data directory may not be.
			short, err := os.Readlink(sockets)
			if err != nil {
				continue
			}
			err = traceFrom(ctx, filepath.Join(short, entry.Name()), device, follow, line)
			switch {
			case errors.Is(err, core.ErrNotFound), errors.Is(err, core.ErrGone):
				// Another instance, or the socket of one that ended.
			case err != nil:
				return fmt.Errorf("trace of device %s: %w", device, err)
			default:
				return nil
			}
		}
	}
	return found
}

func traceFrom(ctx context.Context, socket, device string, follow bool, line func(core.TraceLine) error) error {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := apiv1.NewBackendClient(conn).Trace(ctx, &apiv1.TraceRequest{Device: device, Follow: follow})
	if err != nil {
		return wire.FromStatus(err)
	}
	var last uint64
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && last > 0 && errors.Is(wire.FromStatus(err), core.ErrGone):
			return nil // the instance ended while it was watched
		case err != nil:
			return wire.FromStatus(err)
		}
		for _, l := range m.GetLines() {
			if l.GetNumber() <= last || len(l.GetKind()) > wire.TraceKindMax || len(l.GetText()) > wire.TraceTextMax {
				return fmt.Errorf("line after %d: %w", last, core.ErrCorrupt)
			}
			last = l.GetNumber()
			if err := line(core.TraceLine{Number: last, Kind: printable(l.GetKind()), Text: printable(l.GetText())}); err != nil {
				return err
			}
		}
	}
}
