package abi

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// objects returns one of each object.
func objects() []Object {
	return []Object{
		&InitData{}, &RuntimePointers{}, &RunWorkQueue{}, &QueueInfo{}, &GpuContext{}, &Notifier{}, &NotifierList{}, &RunCompute{}, &Barrier{},
		&Control{}, &DestroyContext{}, &RecoverChannel{}, &Write32{},
		&Fault{}, &Flag{}, &Timeout{}, &ChannelError{}, &LogIndex{}, &LogPayload{}, &Stat{},
		&StartCompute{}, &Timestamp{}, &WaitForIdle{}, &FinalizeCompute{}, &RetireStamp{}, &Store{}, &Store{Wide: true}, &Read{}, &ALU{}, &EndStamp{},
	}
}

// all runs a test for each version, both places of the word in QueueInfo included.
func all(t *testing.T, f func(t *testing.T, a *ABI)) {
	for _, v := range append(Versions(), Version{Generation: G13, Firmware: V13_5, QueueInfoM1N1: true}) {
		name := v.String()
		if v.QueueInfoM1N1 {
			name += "-m1n1"
		}
		t.Run(name, func(t *testing.T) {
			a, err := For(v)
			if err != nil {
				t.Fatal(err)
			}
			f(t, a)
		})
	}
}

func TestTablesAreSound(t *testing.T) {
	all(t, func(t *testing.T, a *ABI) {
		target, _ := For(Target)
		for _, o := range objects() {
			r, values := o.layout(a)
			same, _ := o.layout(target)
			if len(values) != len(r.fields) || len(same.fields) != len(r.fields) || same.name != r.name {
				t.Errorf("%s: %d values, %d fields, %d in the target", r.name, len(values), len(r.fields), len(same.fields))
				continue
			}
			taken := make([]string, r.size)
			take := func(name string, off, size uint32) {
				for i := off; i < off+size; i++ {
					if i >= r.size || taken[i] != "" {
						t.Errorf("%s: %s at %#x is outside or overlaps", r.name, name, i)
						return
					}
					taken[i] = name
				}
			}
			for i, f := range r.fields {
				if f.name != same.fields[i].name {
					t.Errorf("%s: field %d is %s, in the target %s", r.name, i, f.name, same.fields[i].name)
				}
				if f.size != 0 && f.size != 1 && f.size != 2 && f.size != 4 && f.size != 8 {
					t.Errorf("%s: %s has %d bytes", r.name, f.name, f.size)
				}
				take(f.name, f.off, f.size)
			}
			for _, c := range r.constants {
				take("constant", c.off, c.size)
			}
		}
	})
}

// TestOffsets holds the tables against the sources. A row names the places in
// 12.3 and in 13.5; none says that it does not exist.
func TestOffsets(t *testing.T) {
	const none = ^uint32(0)
	for _, c := range []struct {
		o                  Object
		field              string
		in123, in135, size uint32
	}{
		{&InitData{}, "ver_info", none, 0, 8},
		{&InitData{}, "unk_buf", 0, 8, 8},
		{&InitData{}, "runtime_pointers", 0x10, 0x18, 8},
		{&InitData{}, "globals", 0x18, 0x20, 8},
		{&InitData{}, "fw_status", 0x20, 0x28, 8},
		{&InitData{}, "uat_page_size", 0x28, 0x30, 2},
		{&InitData{}, "host_mapped_fw_allocations", 0xa0, 0xa8, 4},
		{&RuntimePointers{}, "pipe0_vertex_state", 0, 0, 8},
		{&RuntimePointers{}, "pipe3_compute_ring", 0xb8, 0xb8, 8},
		{&RuntimePointers{}, "device_control_state", 0xc0, 0xc0, 8},
		{&RuntimePointers{}, "event_state", 0xd0, 0xd0, 8},
		{&RuntimePointers{}, "fw_log_state", 0xe0, 0xe0, 8},
		{&RuntimePointers{}, "ktrace_state", 0xf0, 0xf0, 8},
		{&RuntimePointers{}, "stats_state", 0x100, 0x100, 8},
		{&RuntimePointers{}, "fault_info", 0x190, 0x190, 8},
		{&RuntimePointers{}, "fw_log_payloads", 0x1b0, 0x1b0, 8},
		{&RunWorkQueue{}, "work_queue", 4, 4, 8},
		{&RunWorkQueue{}, "wptr", 0xc, 0xc, 4},
		{&RunWorkQueue{}, "event_slot", 0x10, 0x10, 4},
		{&RecoverChannel{}, "work_queue", 8, 8, 8},
		{&RecoverChannel{}, "event_value", 0x10, 0x10, 4},
		{&DestroyContext{}, "gpu_context", 0x1c, 0x14, 8},
		{&DestroyContext{}, "ctx_0", 0x14, 0x11, 1},
		{&DestroyContext{}, "ctx_23", 8, 8, 1},
		{&Flag{}, "firing0", 4, 4, 4},
		{&Flag{}, "unk_14", 0x14, 0x14, 2},
		{&Timeout{}, "event_slot", 0xc, 0xc, 4},
		{&ChannelError{}, "event_value", 0x10, 0x10, 4},
		{&QueueInfo{}, "event_id", 0x2c, 0x2c, 4},
		{&QueueInfo{}, "priority_0", 0x30, 0x30, 4},
		{&QueueInfo{}, "uuid", 0x50, 0x50, 4},
		{&QueueInfo{}, "busy", 0x60, 0x60, 4},
		{&QueueInfo{}, "error_count", 0x88, 0x8c, 4},
		{&QueueInfo{}, "pending", 0x98, 0x9c, 4},
		{&QueueInfo{}, "gpu_context", 0xa0, 0xa4, 8},
		{&Notifier{}, "generation", 8, 8, 4},
		{&Notifier{}, "cur_count", 0xc, 0xc, 4},
		{&Notifier{}, "has_comp", 0x70, 0x70, 4},
		{&Notifier{}, "list_prev", 0x98, 0x98, 8},
		{&Barrier{}, "wait_stamp", 4, 4, 8},
		{&Barrier{}, "uuid", 0x18, 0x18, 4},
		{&RunCompute{}, "counter", none, 4, 8},
		{&RunCompute{}, "vm_slot", 8, 0x10, 4},
		{&RunCompute{}, "notifier", 0xc, 0x14, 8},
		{&RunCompute{}, "cdm_ctrl_stream_base", 0x70, 0x78, 8},
		{&RunCompute{}, "microsequence", 0x1e8, 0x1f0, 8},
		{&RunCompute{}, "cdm_ctrl_stream_end", 0x224, 0x22c, 8},
		{&RunCompute{}, "stamp", 0x280, 0x288, 8},
		{&RunCompute{}, "stamp_value", 0x290, 0x298, 4},
		{&RunCompute{}, "event_seq", 0x2a4, 0x2ac, 4},
		{&RunCompute{}, "start_ts", 0x2b0, 0x2b8, 8},
		{&RunCompute{}, "user_start_ts", 0x2c0, 0x2c8, 8},
		{&RunCompute{}, "client_sequence", 0x2d0, 0x2d8, 1},
		{&StartCompute{}, "work_queue", 0x1c, 0x1c, 8},
		{&StartCompute{}, "notifier_buf", 0x164, 0x164, 8},
		{&FinalizeCompute{}, "fw_stamp", 0x28, 0x28, 8},
		{&FinalizeCompute{}, "restart_branch_offset", 0x58, 0x58, 4},
		{&LogIndex{}, "msg_index", 8, 8, 8},
		{&LogPayload{}, "text_00", 0x10, 0x10, 8},
	} {
		for _, v := range []struct {
			version Firmware
			want    uint32
		}{{V12_3, c.in123}, {V13_5, c.in135}} {
			a, _ := For(Version{Generation: G13, Firmware: v.version})
			off, size, ok := a.Offset(c.o, c.field)
			if !ok {
				off = none
			}
			if off != v.want || ok && size != c.size {
				t.Errorf("%s %T.%s: at %#x size %d, want %#x size %d", v.version, c.o, c.field, off, size, v.want, c.size)
			}
		}
	}
	m1n1, _ := For(Version{Generation: G13, Firmware: V13_5, QueueInfoM1N1: true})
	if off, _, _ := m1n1.Offset(&QueueInfo{}, "error_count"); off != 0x88 {
		t.Errorf("m1n1's error_count at %#x", off)
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		o            Object
		in123, in135 uint32
	}{
		{&RunWorkQueue{}, 0x30, 0x30}, {&Fault{}, 0x38, 0x38}, {&LogIndex{}, 0x38, 0x38}, {&LogPayload{}, 0xd8, 0xd8}, {&Stat{}, 0x30, 0x40},
		{&QueueInfo{}, 0xb0, 0xb8}, {&GpuContext{}, 0x40, 0x40}, {&Notifier{}, 0xa8, 0xb0}, {&Barrier{}, 0x20, 0x20},
		{&StartCompute{}, 0x16c, 0x16c}, {&Timestamp{}, 0x34, 0x3c}, {&FinalizeCompute{}, 0x7c, 0x7c}, {&RetireStamp{}, 4, 4},
	} {
		for v, want := range map[Firmware]uint32{V12_3: c.in123, V13_5: c.in135} {
			a, _ := For(Version{Generation: G13, Firmware: v})
			if got := a.Size(c.o); got != want {
				t.Errorf("%s %T: %#x bytes, want %#x", v, c.o, got, want)
			}
		}
	}
}

// TestRoundTrip fills every field with chance and reads it back.
func TestRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all(t, func(t *testing.T, a *ABI) {
		for _, o := range objects() {
			r, values := o.layout(a)
			for i, f := range r.fields {
				if f.size > 0 {
					assign(values[i], random.Uint64())
				}
			}
			b := a.Bytes(o)
			again := fresh(o)
			if err := a.Decode(b, again); err != nil {
				t.Errorf("%s: %v", r.name, err)
				continue
			}
			if !bytes.Equal(a.Bytes(again), b) || a.Text(again) != a.Text(o) || !strings.HasPrefix(a.Text(o), r.name) {
				t.Errorf("%s: %s became %s", r.name, a.Text(o), a.Text(again))
			}
			if err := a.Decode(b[:r.size-1], again); err == nil {
				t.Errorf("%s: short bytes were taken", r.name)
			}
			if err := a.Encode(b[:r.size-1], o); err == nil {
				t.Errorf("%s: fits into too little", r.name)
			}
			spoil(t, a, r, b, again)
		}
	})
}

// spoil changes the bytes that no field has: each must be refused.
func spoil(t *testing.T, a *ABI, r *record, b []byte, o Object) {
	t.Helper()
	free := bytes.Repeat([]byte{1}, int(r.size))
	for _, f := range r.fields {
		clear(free[f.off : f.off+f.size])
	}
	for i := range free {
		if free[i] == 0 {
			continue
		}
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		var w *WireError
		if err := a.Decode(bad, o); !errors.As(err, &w) || w.What != r.name {
			t.Errorf("%s: byte %#x may be anything: %v", r.name, i, err)
		}
	}
}

// fresh returns an object of the same kind and layout.
func fresh(o Object) Object {
	for _, f := range objects() {
		if w, ok := o.(*Store); ok && w.Wide {
			return &Store{Wide: true}
		}
		if strings.EqualFold(typeName(f), typeName(o)) {
			return f
		}
	}
	return nil
}

func TestVersions(t *testing.T) {
	if _, err := For(Version{Generation: "G14", Firmware: V13_5}); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
	if v := Versions(); len(v) != 2 || v[0].Firmware != V12_3 || v[1] != Target {
		t.Errorf("versions %v", v)
	}
	all(t, func(t *testing.T, a *ABI) {
		taken := map[uint32]Global{}
		for g := range GlobalCount {
			off, ok := a.GlobalOffset(g)
			if !ok {
				if g != GlobalCLKillTimeoutMS || a.Version.Firmware != V12_3 {
					t.Errorf("%s does not exist", g)
				}
				continue
			}
			if other, twice := taken[off]; twice || off%4 != 0 || off+4 > a.PendingStampsOffset() {
				t.Errorf("%s at %#x, where %s is", g, off, other)
			}
			taken[off] = g
		}
		if end := a.PendingStampsOffset() + PendingStamps*PendingStampSize; end > a.GlobalsSize() {
			t.Errorf("pending stamps end at %#x of %#x", end, a.GlobalsSize())
		}
		if _, ok := a.GlobalOffset(GlobalCount); ok || GlobalCount.String() == "" || GlobalIdleOffDelayMS.Default() != 2 {
			t.Error("globals")
		}
	})
}
