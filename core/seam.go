package core

import "time"

// CommandKind is what the core asks of a backend about one entity.
type CommandKind uint8

// The commands.
const (
	_ CommandKind = iota
	// CommandCreate brings an entity onto the device, from the image Generation.
	CommandCreate
	// CommandRun appends a job to the entity's ring, from workgroup First on.
	CommandRun
	// CommandCancel takes a job out of the ring, at the next preemption point if it runs.
	CommandCancel
	// CommandMessage is an in-band message.
	CommandMessage
	// CommandDestroy removes the entity; nothing of it happens afterwards.
	CommandDestroy
)

// MessageKind is the opcode of an in-band message. Values from MessageBackend on
// belong to the backend.
type MessageKind uint32

// The messages. Zero is never sent, so that an uninitialised one is caught.
const (
	MessageSuspend       MessageKind = 1
	MessageResume        MessageKind = 2
	MessageSetProperties MessageKind = 3
	// MessageBarrier asks the backend for nothing: its answer says that every
	// command before it was carried out.
	MessageBarrier MessageKind = 4
	MessageBackend MessageKind = 1024
)

// Command is one request to a backend. It is idempotent under (Entity, Epoch, Seq).
type Command struct {
	Kind   CommandKind
	Entity EntityID
	Epoch  Epoch
	Seq    CommandSeq
	// Job is set for run and cancel, JobSpec for run.
	Job     JobID
	JobSpec *JobSpec
	// First is the first workgroup to execute, in linear order.
	First uint64
	// ExecutedTime was spent on the job before, in this entity's earlier epochs.
	ExecutedTime time.Duration
	// EntitySpec and Generation are set for create.
	EntitySpec *EntitySpec
	Generation Generation
	// Message, Properties and Payload are set for messages.
	Message    MessageKind
	Properties Properties
	Payload    []byte
}

// BackendEventKind is what a backend reports.
type BackendEventKind uint8

// The events. All but EventProgress are numbered, kept by the plugin until they
// are acknowledged, and delivered in order.
const (
	_ BackendEventKind = iota
	// EventApplied: the create command was carried out.
	EventApplied
	// EventRefused: a command was refused; Cause and Error say why.
	EventRefused
	// EventStarted: the first workgroup of the job in this epoch was begun.
	EventStarted
	// EventCompleted: all workgroups of the job are done.
	EventCompleted
	// EventCancelled: the job left the device before its end, Done says how far.
	EventCancelled
	// EventMessageDone: a message took effect; suspend: the entity is off the hardware.
	EventMessageDone
	// EventDestroyed: nothing of the entity can happen any more in this epoch. Job
	// names the job that was executing, if any, with its last usage.
	EventDestroyed
	// EventEntityLost: the entity's state on the device is gone. Guilty says whether
	// it is to blame, Job which job then.
	EventEntityLost
	// EventDeviceHealth: the device as a whole failed (Error) and needs a new instance.
	EventDeviceHealth
	// EventProgress: the latest sample; not numbered, may be dropped.
	EventProgress
)

// BackendEvent is one report of a backend. Bytes from a plugin are validated
// before they become one.
type BackendEvent struct {
	Kind    BackendEventKind
	Seq     EventSeq
	Entity  EntityID
	Epoch   Epoch
	Command CommandSeq
	Job     JobID
	// Done is the job's cursor: workgroups done in linear order, First included.
	Done uint64
	// Executed counts the workgroups that the engine ran for the job in this epoch.
	Executed uint64
	// ExecutedTime is the time in execution in this epoch.
	ExecutedTime time.Duration
	// Cost is what a suspend took: command received to confirmed off the hardware.
	Cost   time.Duration
	Guilty bool
	Cause  Cause
	Error  string
	Reply  []byte
}

// Granularity is where a device can be preempted.
type Granularity string

// The granularities.
const (
	GranularityCommand   Granularity = "command"
	GranularityWorkgroup Granularity = "workgroup"
	GranularityInstant   Granularity = "instant"
)

// DeviceSpec is a device as configured: its name, the backend that drives it,
// the engine under its firmware and further options of the backend.
type DeviceSpec struct {
	Name    string            `json:"name"`
	Backend string            `json:"backend"`
	Engine  string            `json:"engine"`
	Options map[string]string `json:"options,omitempty"`
}

// DeviceDescription is what a backend declares of an opened device.
type DeviceDescription struct {
	Name        string
	Engine      string
	Granularity Granularity
	// Formats are the kernel formats it takes, best first.
	Formats []string
	// Credits is the room of an entity's ring.
	Credits uint32
	// EntitiesMax bounds the entities at once.
	EntitiesMax uint32
	// MemoryMax bounds the bytes of all buffers of one entity.
	MemoryMax uint64
	// SavesImages says that suspended entities can be saved.
	SavesImages bool
}

// BackendDescription is what a backend declares of itself.
type BackendDescription struct {
	Name, Version string
	// Engines it can put under its firmware.
	Engines []string
	// ConfigSchema is a JSON schema of the options of its devices; empty when it
	// declares none.
	ConfigSchema []byte
	// Messages are the message types of its own.
	Messages []MessageType
	// Level is the highest level of the conformance kit that the backend claims to
	// pass, LevelJobs to LevelPortable.
	Level int
}

// The levels of the conformance kit; each includes those below.
const (
	// LevelJobs: jobs run, in order, once, and end with a cause.
	LevelJobs = 1
	// LevelMessages: in-band messages and properties.
	LevelMessages = 2
	// LevelImages: suspend, resume and images. What runs deployments needs it:
	// results, cancels and suspends are taken from images.
	LevelImages = 3
	// LevelRecovery: nothing is lost or done twice when either side dies.
	LevelRecovery = 4
	// LevelPortable: images of other backends are continued.
	LevelPortable = 5
)

// TraceLine is one decoded message between a driver and its firmware.
type TraceLine struct {
	// Number rises by one; a gap means that lines were dropped.
	Number uint64
	// Kind says which way the message went, in the vendor's words, for instance "H2G".
	Kind string
	// Text is the message as a person reads it, in one line.
	Text string
}

// MessageType is what a backend declares of one of its own messages.
type MessageType struct {
	// Kind is MessageBackend or more, and Name a word for it; both are the
	// backend's only one of that value.
	Kind MessageKind
	Name string
	// Doc says in a sentence or two what it asks for, what its payload and the
	// reply are.
	Doc string
}

// ProcessIdentity is how a process is known beyond its number: nothing is ever
// killed or adopted by a bare pid.
type ProcessIdentity struct {
	PID int `json:"pid"`
	// StartTicks is field 22 of /proc/PID/stat: start in clock ticks since boot.
	StartTicks uint64 `json:"start_ticks"`
	BootID     string `json:"boot_id"`
	// Executable is the digest of /proc/PID/exe as it was at the start.
	Executable Digest `json:"executable"`
}

// InstanceRecord is what is stored of a running plugin process, so that the
// next daemon can adopt it or end it verifiably.
type InstanceRecord struct {
	Backend string          `json:"backend"`
	Process ProcessIdentity `json:"process"`
	// Instance is a random name that the plugin repeats in its hello.
	Instance string `json:"instance"`
	Network  string `json:"network"`
	Address  string `json:"address"`
	// ProtocolVersion of go-plugin's handshake, which a reattach does not carry.
	ProtocolVersion int `json:"protocol_version"`
	// Directory holds the instance's sockets and its usage file.
	Directory string `json:"directory"`
	// Devices are what the instance was started with.
	Devices []DeviceSpec `json:"devices"`
	// Candidate says that it was started to replace another instance that is on
	// record too, and holds nothing yet.
	Candidate bool `json:"candidate,omitempty"`
}
