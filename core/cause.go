package core

// Cause is why a job ended other than by completing: a closed set of codes.
type Cause string

// The causes.
const (
	CauseNone Cause = ""
	// CauseTrap: the kernel did something its engine forbids (an address outside of its
	// memory, unreachable code, division by zero, stack overflow).
	CauseTrap Cause = "trap"
	// CauseMemory: the kernel needed more memory than its limits allow, or the device
	// itself reported a memory fault: an address that is mapped nowhere.
	CauseMemory Cause = "memory"
	// CauseHang: a workgroup did not reach a preemption point within its deadline.
	CauseHang Cause = "hang"
	// CauseTimeout: the job executed longer than its timeout.
	CauseTimeout Cause = "timeout"
	// CauseQueueTimeout: the job waited longer than allowed to be sent to the backend.
	CauseQueueTimeout Cause = "queue-timeout"
	// CauseKernel: the kernel could not be loaded or has no such entry.
	CauseKernel Cause = "kernel"
	// CauseRefused: the backend refused the job.
	CauseRefused Cause = "refused"
	// CauseUser: somebody asked for it (cancel, kill, close).
	CauseUser Cause = "user"
	// CauseEarlier: an earlier job of the entity failed.
	CauseEarlier Cause = "earlier-job"
	// CauseDependency: a job that this one awaited did not complete.
	CauseDependency Cause = "dependency"
	// CauseBanned: the entity was banned after it was guilty too often.
	CauseBanned Cause = "banned"
	// CauseDevice: the device or its plugin could not be brought back.
	CauseDevice Cause = "device"
	// CauseImage: the entity's state could not be saved or restored.
	CauseImage Cause = "image"
	// CauseOutput: a result file could not be written.
	CauseOutput Cause = "output"
)
