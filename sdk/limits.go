package sdk

import "time"

// Bounds of what a backend may take. A call that overstays its bound by
// callGrace makes the device report itself as failed.
const (
	// openBound is for bringing up a device: firmware load, self-test, compile caches.
	openBound = 60 * time.Second
	// createBound is for creating an entity once its image is arriving; imageRate
	// of its buffers' bytes add a second each.
	createBound = 60 * time.Second
	imageRate   = 16 << 20
	// loadBound is for loading a kernel; a first OpenCL build takes seconds.
	loadBound = 60 * time.Second
	// runBound is for one batch of Run calls; none of them waits for a job.
	runBound = 30 * time.Second
	// controlBound is for cancel, resume, set-properties and own messages.
	controlBound = 30 * time.Second
	// leaveBound is for suspend and destroy where the device is no LeaveBounder: 30 s
	// beyond a hang and preemption deadline of 30 s.
	leaveBound = 60 * time.Second
	// LeaveBoundMax is the most a LeaveBounder gets: what the schedulers wait for a
	// suspend or destroy (sched.DefaultAnswer) is above it and a run before it, so that the
	// backend says what hung before it counts as silent. A test compares the two.
	LeaveBoundMax = 115 * time.Second
	// saveBound is for an image to be taken and read, with imageRate as above.
	saveBound = 60 * time.Second
	// closeBound is for closing a device when the process ends.
	closeBound = 5 * time.Second
	callGrace  = 10 * time.Second
)

// Bounds of what the host may take.
const (
	// imageWait is how long Create waits for its image, and an image for its Create.
	imageWait = 60 * time.Second
	// imageIdle bounds the time between two messages of a bulk stream.
	imageIdle = 30 * time.Second
	// kernelWait is how long Run waits for its kernel.
	kernelWait = 30 * time.Second
	// defaultLease is how long a process lives without a host.
	defaultLease = time.Minute
	// firstLease is the least time until the first host must have connected.
	firstLease = 30 * time.Second
	// stopBound is how long open streams may delay the end of the process.
	stopBound = 2 * time.Second
	// progressEvery is the interval of samples.
	progressEvery = 100 * time.Millisecond
)

// Limits of queues, and what happens when one is full.
const (
	// eventsMax is how many numbered events of a device may wait for their
	// acknowledgement; then its executors wait. Reports of jobs in flight may go
	// beyond it, by two for each.
	eventsMax = 16384
	// Packed events are kept in pieces of blocksBytes, as long as blockSpace is
	// left in one; blocksSpare is the largest empty list of messages that keeps
	// its memory (64 KiB).
	blocksBytes = 16 << 10
	blockSpace  = 512
	blocksSpare = 768
	// ballastBytes of a plugin's heap are never touched, so they take no memory:
	// they only let the collector wait for 32 MiB. Buffers of entities are
	// mapped, so the heap is small otherwise, and a stream of jobs would have it
	// collected a hundred times a second.
	ballastBytes = 16 << 20
	// itemsSpare is the largest empty queue of an entity that keeps its memory
	// (160 KiB), and queuesSpare how many of those a device keeps.
	itemsSpare  = 4096
	queuesSpare = 8
	// ringSpare is the largest empty list of an entity's jobs in the ring that
	// keeps its memory (16 KiB).
	ringSpare = 1024
	// laneSlack is how many commands may wait for one entity beyond two for each
	// credit (run and cancel); then the session ends with core.ErrFull, because
	// a host that counts credits cannot get there.
	laneSlack = 256
	// lanesMax bounds the entities of a device that have a lane; then likewise.
	lanesMax = 1 << 18
	// tombsMax is how many ended entities are remembered; then the oldest goes.
	tombsMax = 1 << 16
	// kernelsMax bounds the kernels of a device; then an upload is refused.
	kernelsMax = 1 << 14
	// uploadsMax bounds the images that wait for their Create; then likewise.
	uploadsMax = 1024
	// devicesMax bounds the devices of an instance; then opening is refused.
	devicesMax = 256
	// logLinesMax is how many log lines are kept; then the oldest goes.
	logLinesMax = 4096
	// traceLinesMax is how many lines of trace one message carries.
	traceLinesMax = 256
	// logLineBytes bounds one line; the rest is cut.
	logLineBytes = 8 << 10
)
