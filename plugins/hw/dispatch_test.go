package hw

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// sampleDispatch is a valid host half.
func sampleDispatch() Dispatch {
	d := Dispatch{
		KernelAddress: 0x20000, KernelSize: 1234, Format: "wasm", Entry: "factor",
		ArgsAddress: 0x30000, ArgsCount: 3, Grid: [3]uint32{4, 5, 6}, Group: [3]uint32{8, 8, 1},
		First: 7, Count: 113, Job: 11, Epoch: 2,
	}
	for i := range d.Digest {
		d.Digest[i] = byte(i)
	}
	return d
}

func TestDispatchGolden(t *testing.T) {
	d := sampleDispatch()
	b := make([]byte, DispatchSize)
	if err := d.Encode(b); err != nil {
		t.Fatal(err)
	}
	golden := "47574444" + "01000000" + "0000020000000000" + "d204000000000000" +
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" +
		"7761736d" + strings.Repeat("00", 12) + "666163746f72" + strings.Repeat("00", 58) +
		"0000030000000000" + "03000000" + "00000000" + "040000000500000006000000" + "080000000800000001000000" +
		"0700000000000000" + "7100000000000000" + "0b00000000000000" + "0200000000000000" + strings.Repeat("00", 48+256)
	if got := hex.EncodeToString(b); got != golden {
		t.Errorf("encoded\n%s\nwant\n%s", got, golden)
	}
	back, err := DecodeDispatch(b)
	if err != nil || back != d {
		t.Errorf("decoded %+v, %v", back, err)
	}
}

func TestDispatchRefusals(t *testing.T) {
	for name, change := range map[string]func(*Dispatch){
		"no kernel":       func(d *Dispatch) { d.KernelSize = 0 },
		"huge kernel":     func(d *Dispatch) { d.KernelSize = KernelSizeMax + 1 },
		"kernel overflow": func(d *Dispatch) { d.KernelAddress = math.MaxUint64 - 5 },
		"no format":       func(d *Dispatch) { d.Format = "" },
		"long format":     func(d *Dispatch) { d.Format = strings.Repeat("x", 17) },
		"no entry":        func(d *Dispatch) { d.Entry = "" },
		"entry not text":  func(d *Dispatch) { d.Entry = "a\xff" },
		"entry with NUL":  func(d *Dispatch) { d.Entry = "a\x00b" },
		"too many args":   func(d *Dispatch) { d.ArgsCount = ArgsMax + 1 },
		"args unaligned":  func(d *Dispatch) { d.ArgsAddress++ },
		"args overflow":   func(d *Dispatch) { d.ArgsAddress = math.MaxUint64 - 7 },
		"args of none":    func(d *Dispatch) { d.ArgsCount = 0 },
		"empty grid":      func(d *Dispatch) { d.Grid[1] = 0 },
		"grid overflow":   func(d *Dispatch) { d.Grid = [3]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32} },
		"empty group":     func(d *Dispatch) { d.Group[2] = 0 },
		"no count":        func(d *Dispatch) { d.Count = 0 },
		"count too large": func(d *Dispatch) { d.Count++ },
		"range overflow":  func(d *Dispatch) { d.First, d.Count = 1, math.MaxUint64 },
		"first too large": func(d *Dispatch) { d.First = 121 },
	} {
		d := sampleDispatch()
		change(&d)
		b := bytes.Repeat([]byte{0x55}, DispatchSize)
		var wrong *DescriptorError
		if err := d.Encode(b); !errors.As(err, &wrong) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: encode: %v", name, err)
		}
		if b[0] != 0x55 {
			t.Errorf("%s: memory changed", name)
		}
	}
	good := sampleDispatch()
	for name, change := range map[string]func([]byte){
		"magic":          func(b []byte) { b[0]++ },
		"version":        func(b []byte) { b[4]++ },
		"reserved":       func(b []byte) { b[0x94] = 1 },
		"reserved end":   func(b []byte) { b[0xff] = 1 },
		"after format":   func(b []byte) { b[0x47] = 1 },
		"after entry":    func(b []byte) { b[0x87] = 1 },
		"count enormous": func(b []byte) { b[0xbf] = 0xff },
	} {
		b := make([]byte, DispatchSize)
		if err := good.Encode(b); err != nil {
			t.Fatal(err)
		}
		change(b)
		if _, err := DecodeDispatch(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: decode: %v", name, err)
		}
	}
	if _, err := DecodeDispatch(make([]byte, 255)); !errors.Is(err, ErrInvalid) {
		t.Errorf("short: %v", err)
	}
}

func TestArgs(t *testing.T) {
	args := []Arg{{Buffer: true, Bits: 0x1_0000_0000}, {Bits: 42}}
	b := make([]byte, 2*ArgSize)
	if err := EncodeArgs(b, args); err != nil {
		t.Fatal(err)
	}
	if want := "01000000000000000000000001000000" + "00000000000000002a00000000000000"; hex.EncodeToString(b) != want {
		t.Errorf("encoded %x", b)
	}
	back, err := DecodeArgs(b)
	if err != nil || len(back) != 2 || back[0] != args[0] || back[1] != args[1] {
		t.Errorf("decoded %v, %v", back, err)
	}
	b[16] = 2
	if _, err := DecodeArgs(b); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown flag: %v", err)
	}
	if _, err := DecodeArgs(b[:17]); !errors.Is(err, ErrInvalid) {
		t.Errorf("half a slot: %v", err)
	}
	if err := EncodeArgs(b, make([]Arg, 3)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too small: %v", err)
	}
}

func TestReportThroughMemory(t *testing.T) {
	a := newArena(t, 4*Granule)
	const addr = 2 * Granule
	want := Report{
		Status: StatusFault, Cause: CauseTrap, Done: 5, Executed: 6, ExecutedTime: 7 * time.Millisecond,
		Detail: strings.Repeat("ä", 100),
	}
	if err := WriteReport(a, addr, want); err != nil {
		t.Fatal(err)
	}
	want.Detail = strings.Repeat("ä", 64)
	if got, err := ReadReport(a, addr, 5); err != nil || got != want {
		t.Errorf("read %+v, %v", got, err)
	}
	if _, err := ReadReport(a, addr, 4); !errors.Is(err, ErrInvalid) {
		t.Errorf("more done than there is: %v", err)
	}
	if err := WriteReport(a, addr, Report{Status: StatusRunning}); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadReport(a, addr, 5); err != nil || got != (Report{Status: StatusRunning}) {
		t.Errorf("old text stays: %+v, %v", got, err)
	}
	if err := WriteProgress(a, addr, 2, 3, time.Second); err != nil {
		t.Fatal(err)
	}
	if got, _ := ReadReport(a, addr, 5); got.Done != 2 || got.Executed != 3 || got.ExecutedTime != time.Second || got.Status != StatusRunning {
		t.Errorf("progress: %+v", got)
	}
	for _, bad := range []uint64{1, a.Size(), a.Size() - 256, math.MaxUint64 - 63} {
		if err := WriteReport(a, bad, Report{}); !errors.Is(err, ErrBounds) {
			t.Errorf("write at %#x: %v", bad, err)
		}
		if _, err := ReadReport(a, bad, 0); !errors.Is(err, ErrBounds) {
			t.Errorf("read at %#x: %v", bad, err)
		}
	}
}

func TestSpace(t *testing.T) {
	a := newArena(t, 16*Granule)
	s := Space{
		{Address: 0x1_0002_0000, Device: 8 * Granule, Size: 2 * Granule},
		{Address: 0x1_0000_0000, Device: 4 * Granule, Size: Granule, Private: true},
	}
	if err := WriteSpace(a, 2*Granule, s); err != nil {
		t.Fatal(err)
	}
	b, _ := a.Bytes(2*Granule, SpaceSize(2))
	golden := "47574153" + "02000000" + "0000000000000000" +
		"0000000001000000" + "0000040000000000" + "0000010000000000" + "0100000000000000" +
		"0000020001000000" + "0000080000000000" + "0000020000000000" + "0000000000000000"
	if hex.EncodeToString(b) != golden {
		t.Errorf("table %x", b)
	}
	got, err := ReadSpace(a, 2*Granule)
	if err != nil || len(got) != 2 || got[0] != s[1] || got[1] != s[0] {
		t.Fatalf("read %v, %v", got, err)
	}
	for _, c := range []struct {
		addr, size, want uint64
	}{
		{0x1_0000_0000, Granule, 4 * Granule}, {0x1_0000_0010, 4, 4*Granule + 16}, {0x1_0003_ffff, 1, 10*Granule - 1},
		{0x1_0000_0000, Granule + 1, 0}, {0x1_0001_0000, 1, 0}, {0x1_0004_0000, 1, 0}, {0xffff_ffff, 1, 0},
		{0x1_0002_0000, math.MaxUint64, 0}, {0x1_0002_0001, 2 * Granule, 0},
	} {
		dev, err := got.Resolve(c.addr, c.size)
		if dev != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("resolve %#x+%#x: %#x, %v", c.addr, c.size, dev, err)
		}
	}
	if _, err := (Space{}).Resolve(0, 1); !errors.Is(err, ErrBounds) {
		t.Errorf("empty space: %v", err)
	}
}

func TestSpaceRefusals(t *testing.T) {
	const size = 16 * Granule
	good := Mapping{Address: 4 * Granule, Device: 4 * Granule, Size: Granule}
	for name, s := range map[string]Space{
		"address":  {{Address: 1, Device: Granule, Size: Granule}},
		"device":   {{Address: 0, Device: Granule + 4096, Size: Granule}},
		"size":     {{Address: 0, Device: Granule, Size: 0}},
		"register": {{Address: 0, Device: 0, Size: Granule}},
		"beyond":   {{Address: 0, Device: 15 * Granule, Size: 2 * Granule}},
		"device overflow": {{Address: 0, Device: Granule,
			Size: math.MaxUint64 - Granule + 1}},
		"address overflow": {{Address: math.MaxUint64 - Granule + 1, Device: Granule, Size: 2 * Granule}},
		"overlap":          {good, good},
		"too many":         make(Space, SpaceEntriesMax+1),
	} {
		if err := s.Validate(size); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeDispatch(f *testing.F) {
	d := sampleDispatch()
	b := make([]byte, DispatchSize)
	if err := d.Encode(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDispatch(b)
		if err != nil {
			return
		}
		out := make([]byte, ReportOffset)
		if err := d.Encode(out); err != nil || !bytes.Equal(out, b[:ReportOffset]) {
			t.Errorf("%+v does not encode to what it came from: %v", d, err)
		}
	})
}

func FuzzDecodeSpace(f *testing.F) {
	s := Space{{Address: Granule, Device: Granule, Size: Granule}, {Address: 4 * Granule, Device: Granule, Size: Granule, Private: true}}
	b := make([]byte, SpaceSize(len(s)))
	s.encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSpace(b, 64*Granule)
		if err != nil {
			return
		}
		out := make([]byte, SpaceSize(len(s)))
		s.encode(out)
		if !bytes.Equal(out, b[:len(out)]) {
			t.Errorf("%v does not encode to what it came from", s)
		}
	})
}

func FuzzDecodeReport(f *testing.F) {
	f.Add(make([]byte, reportSize), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, count uint64) {
		if r, err := DecodeReport(b, count); err == nil && (r.Done > count || len(r.Detail) > DetailMax || r.ExecutedTime < 0) {
			t.Errorf("accepted %+v", r)
		}
		if args, err := DecodeArgs(b); err == nil {
			out := make([]byte, len(b))
			if err := EncodeArgs(out, args); err != nil || !bytes.Equal(out, b) {
				t.Errorf("arguments %v do not encode to what they came from: %v", args, err)
			}
		}
	})
}
