// Package wire is the form in which commands, events, images and errors cross
// the backend seam; api/v1/backend.proto describes the bytes. Both sides use it,
// and both treat the other as untrusted: every decoder checks lengths before it
// allocates, ranges before it converts, and returns an error that wraps
// core.ErrCorrupt for bytes that break the format.
//
// Commands and events are packed by hand because protobuf objects, not the
// socket, were the limit of a stream of jobs.
package wire

// Limits of what crosses the seam. A peer that exceeds one is refused.
const (
	// Protocol is the version negotiated in go-plugin's handshake.
	Protocol = 1
	// MessageMax bounds a gRPC message in both directions.
	MessageMax = 16 << 20
	// BatchCount bounds the commands or events of one batch.
	BatchCount = 256
	// BatchBytes is where a sender closes a batch; one item may go beyond it.
	BatchBytes = 1 << 20
	// NameMax bounds names (entities, jobs, buffers, devices, entries), in bytes.
	NameMax = 1024
	// FormatsMax bounds the kernels of a job and the formats of a device.
	FormatsMax = 16
	// ArgsMax bounds the arguments of a job.
	ArgsMax = 1024
	// AfterMax bounds the dependencies of a job.
	AfterMax = 65536
	// BuffersMax bounds the buffers of an entity.
	BuffersMax = 4096
	// BufferMax bounds the bytes of one buffer: 1 TiB.
	BufferMax = 1 << 40
	// JobsMax bounds the unfinished jobs in an image.
	JobsMax = 1 << 17
	// PrivateMax bounds a backend's own part of an image, in bytes.
	PrivateMax = 8 << 20
	// PayloadMax bounds the payload of a message and a reply to it, in bytes.
	PayloadMax = 1 << 20
	// ErrorMax bounds an error sentence, in bytes; longer ones are cut.
	ErrorMax = 4096
	// KernelMax bounds the code of a kernel, in bytes.
	KernelMax = 64 << 20
	// PieceBytes is how much of a kernel one message carries.
	PieceBytes = 256 << 10
	// WindowChunks is how many chunks GetImage offers at once; at 256 KiB each
	// a window takes 4 MiB.
	WindowChunks = 16
	// OptionsMax bounds the options of a device.
	OptionsMax = 256
	// SchemaMax bounds a backend's configuration schema, in bytes.
	SchemaMax = 256 << 10
	// MessageTypesMax bounds the message types that a backend declares, and
	// MessageDocMax the text about one, in bytes.
	MessageTypesMax = 256
	MessageDocMax   = 4096
	// TraceKindMax and TraceTextMax bound the parts of a line of trace, in bytes.
	TraceKindMax = 64
	TraceTextMax = 4096
)
