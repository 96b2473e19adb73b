package abi

import "fmt"

// InitData is what the Init message names.
type InitData struct {
	// Version must be InitVersion where the field exists.
	Version                                    uint64
	UnkBuf, RuntimePointers, Globals, FwStatus VA
	PageSize                                   uint16
	PageBits, PageLevels                       uint8
	// HostMapped must be 1: the host maps what the firmware allocates.
	HostMapped uint32
}

// What stands in InitData.
const (
	// InitVersion is four 16-bit words: 1, 1, 16, 1 (driver initdata.rs).
	InitVersion = 1 | 1<<16 | 16<<32 | 1<<48
	InitUnkSize = 0x4000
	UATPageSize = 0x4000
	UATPageBits = 14
	UATLevels   = 3
)

func (m *InitData) layout(a *ABI) (*record, []any) {
	return &a.initData, []any{&m.Version, &m.UnkBuf, &m.RuntimePointers, &m.Globals, &m.FwStatus,
		&m.PageSize, &m.PageBits, &m.PageLevels, &m.HostMapped}
}

// initData returns the layout with so many bytes of version in front. Source:
// driver fw/initdata.rs. The three levels describe the GPU's page tables:
// shift and number of entries of each.
func initData(version uint32) record {
	r := record{"InitData", version + 0xa4, []field{
		{"ver_info", 0x00, version},
		{"unk_buf", version + 0x00, 8},
		{"runtime_pointers", version + 0x10, 8},
		{"globals", version + 0x18, 8},
		{"fw_status", version + 0x20, 8},
		{"uat_page_size", version + 0x28, 2},
		{"uat_page_bits", version + 0x2a, 1},
		{"uat_num_levels", version + 0x2b, 1},
		{"host_mapped_fw_allocations", version + 0xa0, 4},
	}, nil}
	for i, level := range [UATLevels]struct{ shift, entries uint64 }{{36, 8}, {25, 2048}, {14, 2048}} {
		at := version + 0x2c + uint32(i)*0x20
		r.constants = append(r.constants,
			constant{at + 0x00, 1, 8}, constant{at + 0x01, 1, UATPageBits}, constant{at + 0x02, 1, UATPageBits}, constant{at + 0x03, 1, level.shift},
			constant{at + 0x04, 2, level.entries}, constant{at + 0x06, 2, UATPageSize}, constant{at + 0x08, 8, 1},
			constant{at + 0x10, 8, 0x3FFFFFFC000}, constant{at + 0x18, 8, (level.entries - 1) << level.shift})
	}
	return r
}

// Channel names a state block and a ring.
type Channel struct{ State, Ring VA }

// RuntimePointers names the channels and blocks ("region B"). What lies behind
// the modelled part is opaque.
type RuntimePointers struct {
	// Pipes are by level and PipeType.
	Pipes                                      [Levels][pipeTypes]Channel
	DeviceControl, Event, FwLog, KTrace, Stats Channel
	StatsVertex, StatsFragment, StatsCompute   VA
	HWDataA, FaultInfo, Timestamps, HWDataB    VA
	FwLogPayloads                              VA
}

func (m *RuntimePointers) layout(a *ABI) (*record, []any) {
	var values []any
	for level := range m.Pipes {
		for pipe := range m.Pipes[level] {
			values = append(values, &m.Pipes[level][pipe].State, &m.Pipes[level][pipe].Ring)
		}
	}
	for _, c := range []*Channel{&m.DeviceControl, &m.Event, &m.FwLog, &m.KTrace, &m.Stats} {
		values = append(values, &c.State, &c.Ring)
	}
	return &a.runtimePointers, append(values, &m.StatsVertex, &m.StatsFragment, &m.StatsCompute,
		&m.HWDataA, &m.FaultInfo, &m.Timestamps, &m.HWDataB, &m.FwLogPayloads)
}

// runtimePointers is the same in both versions (driver fw/initdata.rs).
var runtimePointers = func() record {
	r := record{"RuntimePointers", 0x1b8, nil, nil}
	for i := range uint32(Levels * pipeTypes) {
		name := fmt.Sprintf("pipe%d_%s", i/pipeTypes, PipeType(i%pipeTypes))
		r.fields = append(r.fields, field{name + "_state", i * 0x10, 8}, field{name + "_ring", i*0x10 + 8, 8})
	}
	for i, name := range []string{"device_control", "event", "fw_log", "ktrace", "stats"} {
		at := 0xc0 + uint32(i)*0x10
		r.fields = append(r.fields, field{name + "_state", at, 8}, field{name + "_ring", at + 8, 8})
	}
	r.fields = append(r.fields,
		field{"stats_vtx", 0x170, 8},
		field{"stats_frag", 0x178, 8},
		field{"stats_comp", 0x180, 8},
		field{"hwdata_a", 0x188, 8},
		field{"fault_info", 0x190, 8},
		field{"timestamps", 0x198, 8},
		field{"hwdata_b", 0x1a0, 8},
		field{"fw_log_payloads", 0x1b0, 8})
	return r
}()

// FwStatus is shared memory, each word alone in 16 bytes: these are word
// indices. FwCtl's channel is at 0.
const (
	FwStatusHaltCount = 0x10 / 4
	FwStatusHalted    = 0x20 / 4
	FwStatusResume    = 0x30 / 4
	FwStatusSize      = 0x80
	// FaultInfoHalts is the word of the total of halts in the fault info block.
	FaultInfoHalts = 0x18 / 4
	FaultInfoSize  = 0x80
)

// Global is a field of Globals ("region C"), shared memory that both sides use
// at run time.
type Global uint8

// The fields that matter.
const (
	GlobalKTraceEnable Global = iota
	GlobalPendingSubmissions
	GlobalFaultControl
	GlobalDoInit
	GlobalProgressCheck3D
	GlobalProgressCheckTA
	GlobalProgressCheckCL
	GlobalIdleOffDelayMS
	GlobalFenderIdleOffDelayMS
	GlobalEarlyWakeTimeoutMS
	GlobalCLContextSwitchTimeoutMS
	GlobalCLKillTimeoutMS
	GlobalContextStoreLatency
	GlobalFaultQueueUUID
	GlobalCount
)

// String is the name in the sources.
func (g Global) String() string {
	if g < GlobalCount {
		return globals[g].name
	}
	return fmt.Sprintf("global %d", uint8(g))
}

// Default is what a host puts there.
func (g Global) Default() uint32 { return globals[g].value }

// FaultControlSoft makes loads of unmapped memory read 0 and drops stores. The vendor's host puts it there; a
// host that wants to know who does that leaves 0.
const FaultControlSoft = 0xb

var globals = [GlobalCount]struct {
	name  string
	value uint32
}{
	{"ktrace_enable", 0}, {"pending_submissions", 0}, {"fault_control", 0}, {"do_init", 1},
	{"progress_check_interval_3d", 40}, {"progress_check_interval_ta", 10}, {"progress_check_interval_cl", 250},
	{"idle_off_delay_ms", 2}, {"fender_idle_off_delay_ms", 40}, {"fw_early_wake_timeout_ms", 5},
	{"cl_context_switch_timeout_ms", 40}, {"cl_kill_timeout_ms", 50}, {"cdm_context_store_latency_threshold", 0},
	{"fault_info.queue_uuid", 0},
}

// globalTable says where the fields lie.
type globalTable struct {
	size    uint32
	offsets [GlobalCount]uint32
	pending uint32
}

// absent marks a field that a version does not have.
const absent = ^uint32(0)

// The sources name the fields; where they lie moves with every version and is
// ours here.
var (
	globals135 = globalTable{size: 0xa00, pending: 0x200, offsets: [GlobalCount]uint32{
		0x00, 0x40, 0x80, 0x84, 0x88, 0x8c, 0x90, 0x94, 0x98, 0x9c, 0xa0, 0xa4, 0xa8, 0xc0}}
	globals123 = globalTable{size: 0x980, pending: 0x180, offsets: [GlobalCount]uint32{
		0x00, 0x40, 0x60, 0x64, 0x68, 0x6c, 0x70, 0x74, 0x78, 0x7c, 0x80, absent, 0x84, 0xa0}}
)

// GlobalsSize is the size of Globals.
func (a *ABI) GlobalsSize() uint32 { return a.globals.size }

// GlobalOffset returns where a field lies in Globals; false when this version does not have it.
func (a *ABI) GlobalOffset(g Global) (uint32, bool) {
	if g >= GlobalCount || a.globals.offsets[g] == absent {
		return 0, false
	}
	return a.globals.offsets[g], true
}
