package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

func nameOK(s string) bool { return s != "" && len(s) <= NameMax && utf8.ValidString(s) }

func corrupt(what string) error { return fmt.Errorf("decode %s: %w", what, core.ErrCorrupt) }

// FromEntitySpec leaves out what a backend must not see: the result files.
func FromEntitySpec(s *core.EntitySpec) *apiv1.EntitySpec {
	return &apiv1.EntitySpec{
		Name: s.Name, Device: s.Device, Mode: string(s.Mode), OnFailure: string(s.OnFailure),
		Priority: string(s.Properties.Priority), Checkpoint: uint64(s.Properties.Checkpoint),
		Buffers: fromBuffers(s.Buffers), Identity: s.Identity[:],
	}
}

// ToEntitySpec validates what a host sent.
func ToEntitySpec(id core.EntityID, m *apiv1.EntitySpec) (*core.EntitySpec, error) {
	s := &core.EntitySpec{
		ID: id, Name: m.GetName(), Device: m.GetDevice(), Mode: core.Mode(m.GetMode()),
		OnFailure: core.OnFailure(m.GetOnFailure()),
		Properties: core.Properties{
			Priority: core.Priority(m.GetPriority()), Checkpoint: time.Duration(m.GetCheckpoint()),
		},
	}
	switch {
	case !nameOK(s.Name) || len(s.Device) > NameMax:
		return nil, corrupt("entity name or device")
	case s.Mode != core.ModeCompute && s.Mode != core.ModeLongRunning:
		return nil, corrupt("entity mode")
	case s.OnFailure != "" && s.OnFailure != core.OnFailureStop && s.OnFailure != core.OnFailureContinue:
		return nil, corrupt("entity on-failure")
	case m.GetCheckpoint() > math.MaxInt64 || len(m.GetIdentity()) != len(s.Identity):
		return nil, corrupt("entity checkpoint or identity")
	}
	switch s.Properties.Priority {
	case "", core.PriorityLow, core.PriorityNormal, core.PriorityHigh:
	default:
		return nil, corrupt("entity priority")
	}
	copy(s.Identity[:], m.GetIdentity())
	var err error
	s.Buffers, err = toBuffers(m.GetBuffers())
	return s, err
}

func fromBuffers(list []core.BufferSpec) []*apiv1.BufferSpec {
	out := make([]*apiv1.BufferSpec, len(list))
	for i, b := range list {
		out[i] = &apiv1.BufferSpec{Name: b.Name, Size: b.Size}
	}
	return out
}

func toBuffers(list []*apiv1.BufferSpec) ([]core.BufferSpec, error) {
	if len(list) > BuffersMax {
		return nil, corrupt("count of buffers")
	}
	seen := make(map[string]bool, len(list))
	out := make([]core.BufferSpec, 0, len(list))
	for _, b := range list {
		if !nameOK(b.GetName()) || seen[b.GetName()] || b.GetSize() > BufferMax {
			return nil, corrupt("buffer name or size")
		}
		seen[b.GetName()] = true
		out = append(out, core.BufferSpec{Name: b.GetName(), Size: b.GetSize()})
	}
	return out, nil
}

// FromImageHeader converts for sending; an error says that h breaks a limit of the seam.
func FromImageHeader(h core.ImageHeader) (*apiv1.ImageHeader, error) {
	if len(h.Private) > PrivateMax || len(h.Jobs) > JobsMax || len(h.Buffers) > BuffersMax {
		return nil, fmt.Errorf("encode image header: private part of %d bytes, %d jobs, %d buffers: %w",
			len(h.Private), len(h.Jobs), len(h.Buffers), core.ErrInvalid)
	}
	m := &apiv1.ImageHeader{
		Version: uint32(h.Version), Entity: uint64(h.Entity), Buffers: fromBuffers(h.Buffers),
		Backend: h.Backend, Private: h.Private, Jobs: make([]*apiv1.ImageJob, len(h.Jobs)),
	}
	for i, j := range h.Jobs {
		m.Jobs[i] = &apiv1.ImageJob{
			Job: uint64(j.Job), Cursor: j.Cursor, Executed: j.Executed, ExecutedTime: uint64(j.ExecutedTime),
		}
	}
	return m, nil
}

// ToImageHeader validates what a peer sent.
func ToImageHeader(m *apiv1.ImageHeader) (core.ImageHeader, error) {
	h := core.ImageHeader{
		Version: int(m.GetVersion()), Entity: core.EntityID(m.GetEntity()),
		Backend: m.GetBackend(), Private: m.GetPrivate(),
	}
	if m == nil || h.Version < 1 || h.Version > core.ImageVersion || h.Entity == 0 {
		return core.ImageHeader{}, corrupt("image version or entity")
	}
	if len(h.Private) > PrivateMax || len(m.GetJobs()) > JobsMax || len(h.Backend) > NameMax {
		return core.ImageHeader{}, corrupt("image header")
	}
	var err error
	if h.Buffers, err = toBuffers(m.GetBuffers()); err != nil {
		return core.ImageHeader{}, err
	}
	seen := make(map[core.JobID]bool, len(m.GetJobs()))
	for _, j := range m.GetJobs() {
		id := core.JobID(j.GetJob())
		if id == 0 || seen[id] || j.GetExecutedTime() > math.MaxInt64 || j.GetCursor() > workgroupsMax {
			return core.ImageHeader{}, corrupt("image job")
		}
		seen[id] = true
		h.Jobs = append(h.Jobs, core.ImageJob{
			Job: id, Cursor: j.GetCursor(), Executed: j.GetExecuted(), ExecutedTime: time.Duration(j.GetExecutedTime()),
		})
	}
	return h, nil
}

// FromDeviceSpec converts for sending.
func FromDeviceSpec(s core.DeviceSpec) *apiv1.DeviceSpec {
	return &apiv1.DeviceSpec{Name: s.Name, Backend: s.Backend, Engine: s.Engine, Options: s.Options}
}

// ToDeviceSpec validates what a host sent.
func ToDeviceSpec(m *apiv1.DeviceSpec) (core.DeviceSpec, error) {
	s := core.DeviceSpec{Name: m.GetName(), Backend: m.GetBackend(), Engine: m.GetEngine(), Options: m.GetOptions()}
	if !nameOK(s.Name) || len(s.Backend) > NameMax || len(s.Engine) > NameMax || len(s.Options) > OptionsMax {
		return core.DeviceSpec{}, corrupt("device specification")
	}
	return s, nil
}

// FromBackendDescription puts what a backend declares into a hello.
func FromBackendDescription(d core.BackendDescription) *apiv1.HelloReply {
	m := &apiv1.HelloReply{
		Protocol: Protocol, Name: d.Name, Version: d.Version, Engines: d.Engines, ConfigSchema: d.ConfigSchema,
		Level: uint32(d.Level),
	}
	for _, t := range d.Messages {
		m.Messages = append(m.Messages, &apiv1.MessageType{Kind: uint32(t.Kind), Name: t.Name, Doc: t.Doc})
	}
	return m
}

// ToBackendDescription validates what a plugin declares in its hello.
func ToBackendDescription(m *apiv1.HelloReply) (core.BackendDescription, error) {
	d := core.BackendDescription{
		Name: m.GetName(), Version: m.GetVersion(), Engines: m.GetEngines(), ConfigSchema: m.GetConfigSchema(),
		Level: int(m.GetLevel()),
	}
	if d.Level < core.LevelJobs || d.Level > core.LevelPortable {
		return core.BackendDescription{}, fmt.Errorf("level %d of the backend, want %d to %d: %w", d.Level, core.LevelJobs, core.LevelPortable, core.ErrCorrupt)
	}
	if !nameOK(d.Name) || len(d.Version) > NameMax || len(d.Engines) > FormatsMax {
		return core.BackendDescription{}, corrupt("backend description")
	}
	if !schemaOK(d.ConfigSchema) {
		return core.BackendDescription{}, corrupt("backend configuration schema")
	}
	if len(m.GetMessages()) > MessageTypesMax {
		return core.BackendDescription{}, corrupt("count of message types")
	}
	kinds, names := make(map[core.MessageKind]bool), make(map[string]bool)
	for _, t := range m.GetMessages() {
		kind, name := core.MessageKind(t.GetKind()), t.GetName()
		if kind < core.MessageBackend || kinds[kind] || !nameOK(name) || names[name] || len(t.GetDoc()) > MessageDocMax {
			return core.BackendDescription{}, corrupt("backend message type")
		}
		kinds[kind], names[name] = true, true
		d.Messages = append(d.Messages, core.MessageType{Kind: kind, Name: name, Doc: t.GetDoc()})
	}
	return d, nil
}

// schemaOK says whether b is empty, or a JSON object of a permitted size.
func schemaOK(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	return len(b) <= SchemaMax && json.Valid(b) && bytes.TrimLeft(b, " \t\r\n")[0] == '{'
}

// FromDeviceDescription converts for sending.
func FromDeviceDescription(d core.DeviceDescription) *apiv1.DeviceDescription {
	return &apiv1.DeviceDescription{
		Name: d.Name, Engine: d.Engine, Granularity: string(d.Granularity), Formats: d.Formats,
		Credits: d.Credits, EntitiesMax: d.EntitiesMax, MemoryMax: d.MemoryMax, SavesImages: d.SavesImages,
	}
}

// ToDeviceDescription validates what a plugin sent.
func ToDeviceDescription(m *apiv1.DeviceDescription) (core.DeviceDescription, error) {
	d := core.DeviceDescription{
		Name: m.GetName(), Engine: m.GetEngine(), Granularity: core.Granularity(m.GetGranularity()),
		Formats: m.GetFormats(), Credits: m.GetCredits(), EntitiesMax: m.GetEntitiesMax(),
		MemoryMax: m.GetMemoryMax(), SavesImages: m.GetSavesImages(),
	}
	switch d.Granularity {
	case core.GranularityCommand, core.GranularityWorkgroup, core.GranularityInstant:
	default:
		return core.DeviceDescription{}, corrupt("device granularity")
	}
	if !nameOK(d.Name) || len(d.Engine) > NameMax || len(d.Formats) > FormatsMax || d.Credits == 0 {
		return core.DeviceDescription{}, corrupt("device description")
	}
	for _, f := range d.Formats {
		if !nameOK(f) {
			return core.DeviceDescription{}, corrupt("device format")
		}
	}
	return d, nil
}
