package manager

import "sync"

// mailbox carries what others have to say to a device loop. Posting never
// blocks; what is in it is bounded by what can be under way at once: one write,
// one image operation for each entity, the events a plugin may have
// unacknowledged, and the requests of callers that wait for their answer.
type mailbox struct {
	mu struct {
		sync.Mutex
		queue  []func()
		closed bool
	}
	wake chan struct{}
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// post has f called by the loop. It returns false when the loop has ended.
func (b *mailbox) post(f func()) bool {
	b.mu.Lock()
	if b.mu.closed {
		b.mu.Unlock()
		return false
	}
	b.mu.queue = append(b.mu.queue, f)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns all that was posted, in order.
func (b *mailbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.mu.queue
	b.mu.queue = nil
	return queue
}

// close refuses further posts and returns what is left.
func (b *mailbox) close() []func() {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	return b.take()
}
