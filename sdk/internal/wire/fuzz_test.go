package wire

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

// message is one kind of message that a peer may send anything in: accept says whether
// it is taken, and then returns what was understood and the message that says the same.
type message struct {
	sample proto.Message
	accept func(b []byte) (understood any, again proto.Message, err error)
}

// messages are those that are converted by hand after protobuf has decoded them.
func messages() []message {
	image, err := FromImageHeader(core.ImageHeader{Version: 1, Entity: 3, Backend: "guc", Private: []byte{1},
		Buffers: []core.BufferSpec{{Name: "a", Size: 9}}, Jobs: []core.ImageJob{{Job: 1, Cursor: 2, Executed: 3, ExecutedTime: 4}}})
	if err != nil {
		panic(err)
	}
	return []message{
		{image, func(b []byte) (any, proto.Message, error) {
			var m apiv1.ImageHeader
			if err := proto.Unmarshal(b, &m); err != nil {
				return nil, nil, err
			}
			h, err := ToImageHeader(&m)
			if err != nil {
				return nil, nil, err
			}
			again, err := FromImageHeader(h)
			if err != nil {
				panic(err) // What was taken can be sent on.
			}
			return h, again, nil
		}},
		{FromBackendDescription(sampleBackend()), func(b []byte) (any, proto.Message, error) {
			var m apiv1.HelloReply
			if err := proto.Unmarshal(b, &m); err != nil {
				return nil, nil, err
			}
			d, err := ToBackendDescription(&m)
			return d, FromBackendDescription(d), err
		}},
		{FromDeviceDescription(core.DeviceDescription{Name: "d", Engine: "wasm", Granularity: core.GranularityCommand, Formats: []string{"wasm"}, Credits: 1}),
			func(b []byte) (any, proto.Message, error) {
				var m apiv1.DeviceDescription
				if err := proto.Unmarshal(b, &m); err != nil {
					return nil, nil, err
				}
				d, err := ToDeviceDescription(&m)
				return d, FromDeviceDescription(d), err
			}},
		{FromDeviceSpec(core.DeviceSpec{Name: "d", Backend: "guc", Options: map[string]string{"quantum": "1s"}}), func(b []byte) (any, proto.Message, error) {
			var m apiv1.DeviceSpec
			if err := proto.Unmarshal(b, &m); err != nil {
				return nil, nil, err
			}
			s, err := ToDeviceSpec(&m)
			return s, FromDeviceSpec(s), err
		}},
		{FromEntitySpec(&core.EntitySpec{ID: 1, Name: "e", Mode: core.ModeCompute, Buffers: []core.BufferSpec{{Name: "a", Size: 9}}}), func(b []byte) (any, proto.Message, error) {
			var m apiv1.EntitySpec
			if err := proto.Unmarshal(b, &m); err != nil {
				return nil, nil, err
			}
			s, err := ToEntitySpec(1, &m)
			if err != nil {
				return nil, nil, err
			}
			return s, FromEntitySpec(s), nil
		}},
	}
}

// FuzzMessages gives every conversion any bytes. What is refused is core.ErrCorrupt or
// protobuf's business; what is taken can be sent on, and says the same.
func FuzzMessages(f *testing.F) {
	all := messages()
	for i, m := range all {
		b, err := proto.Marshal(m.sample)
		if err != nil {
			f.Fatal(err)
		}
		if _, _, err := m.accept(b); err != nil {
			f.Fatalf("sample %d: %v", i, err)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		m := all[int(kind)%len(all)]
		got, again, err := m.accept(b)
		switch {
		case errors.Is(err, proto.Error):
			return
		case err != nil:
			if !errors.Is(err, core.ErrCorrupt) {
				t.Errorf("%T: error %v", m.sample, err)
			}
			return
		}
		sent, err := proto.Marshal(again)
		if err != nil {
			t.Fatalf("%T: %+v cannot be sent: %v", m.sample, got, err)
		}
		same, _, err := m.accept(sent)
		if diff := cmp.Diff(got, same, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%T: %v, %s", m.sample, err, diff)
		}
	})
}

// FuzzStatus gives the reader of errors any status: what comes out is bounded, has a cause of the
// closed set, and crosses the seam again as the same.
func FuzzStatus(f *testing.F) {
	for _, err := range []error{core.ErrFull, errors.New("own"), &core.FaultError{Cause: core.CauseHang, Entity: 1, Job: 2, Detail: "x"}} {
		b, err := proto.Marshal(status.Convert(ToStatus(err, 7)).Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := status.New(0, "").Proto()
		if proto.Unmarshal(b, m) != nil {
			return
		}
		err := FromStatus(status.FromProto(m).Err())
		if (err == nil) != (m.GetCode() == 0) {
			t.Fatalf("code %d became %v", m.GetCode(), err)
		}
		again := FromStatus(ToStatus(err, 0))
		for _, r := range reasons {
			if errors.Is(err, r.err) && !errors.Is(again, r.err) && len(causesOf(err)) == 1 {
				t.Errorf("%v was %s, and became %v", err, r.name, again)
			}
		}
		var fault, same *core.FaultError
		if errors.As(err, &fault) {
			if !slices.Contains(causes[:], fault.Cause) || len(fault.Detail) > ErrorMax {
				t.Errorf("fault %+v", fault)
			}
			if !errors.As(again, &same) || *same != *fault {
				t.Errorf("fault %+v became %+v", fault, same)
			}
		}
		if err != nil && len(err.Error()) > ErrorMax+len(core.ErrLongRunningFence.Error())+2 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

// causesOf are the members of the closed set that an error stands for.
func causesOf(err error) (found []error) {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			found = append(found, r.err)
		}
	}
	return found
}
